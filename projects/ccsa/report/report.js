// Sorts the tables of the class "sortable" by the column whose header is activated.
function cellValue(row, column) {
  const text = row.cells[column].textContent.trim();
  const value = Number(text.replaceAll(",", ""));
  return { text, value: text === "-" || text === "" ? -Infinity : value };
}

function sortTable(table, column) {
  const header = table.tHead.rows[0].cells[column];
  const descending = header.getAttribute("aria-sort") !== "descending" && column > 0;
  const ascending = column === 0 && header.getAttribute("aria-sort") === "ascending";
  const direction = descending || ascending ? -1 : 1;
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const first = cellValue(a, column), second = cellValue(b, column);
    const numeric = !Number.isNaN(first.value) && !Number.isNaN(second.value);
    const order = numeric ? first.value - second.value || 0 : first.text.localeCompare(second.text);
    return direction * order;
  });
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction < 0 ? "descending" : "ascending");
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    cell.querySelector("button").addEventListener("click", () => sortTable(table, column));
  });
}
