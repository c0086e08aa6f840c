"""A folder of images and masks, understood and checked: uint8 arrays and what they mean."""
