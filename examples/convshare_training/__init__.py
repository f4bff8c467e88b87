"""ConvShareViT trained on Fashion-MNIST: does padding decide whether attention is learned?"""
