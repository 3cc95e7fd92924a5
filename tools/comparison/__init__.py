"""The comparison of mitigations on VGG11 and CIFAR-10 that the site shows: measured here, drawn and tabulated there."""
