"""From pictures to features: keyframes, masked autoencoders over several views, trunks."""
