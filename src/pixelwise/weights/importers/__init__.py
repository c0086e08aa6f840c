"""Readers for the weight files of Caffe and TensorFlow."""
