"""csa-deploy and other quantizers on the same graphs and images: time, memory, and accuracy on images none has seen."""
