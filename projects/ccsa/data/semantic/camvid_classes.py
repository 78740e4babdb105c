"""The 11 classes of CamVid, their colors for display, and the raw colors grouped into each."""

CLASSES = (
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)
# RGB; that of the pavement differs from its raw color.
COLORS = [
    *([128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0]),
    *([192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]),
]
RAW_COLORS = {
    "Sky": [(128, 128, 128)],
    "Building": [
        (128, 0, 0),
        (0, 128, 64),  # bridge
        (64, 192, 0),  # wall
        (64, 0, 64),  # tunnel
        (192, 0, 128),  # archway
    ],
    "Pole": [(192, 192, 128), (0, 0, 64)],  # column or pole, traffic cone
    "Road": [(128, 64, 128), (128, 0, 192), (192, 0, 64)],  # and lane markings
    "Pavement": [(0, 0, 192), (64, 192, 128), (128, 128, 192)],  # and parking block, shoulder
    "Tree": [(128, 128, 0), (192, 192, 0)],  # and other vegetation
    "SignSymbol": [(192, 128, 128), (128, 128, 64), (0, 64, 64)],  # and other text, traffic light
    "Fence": [(64, 64, 128)],
    "Car": [
        (64, 0, 128),
        (64, 128, 192),  # SUV, pickup truck
        (192, 128, 192),  # truck, bus
        (192, 64, 128),  # train
        (128, 64, 64),  # other moving
    ],
    "Pedestrian": [
        (64, 64, 0),
        (192, 128, 64),  # child
        (64, 0, 192),  # cart, luggage, stroller
        (64, 128, 64),  # animal
    ],
    "Bicyclist": [(0, 128, 192), (192, 0, 192)],  # and motorcycle, scooter
}
