"""Tests of the inference service, through the clients that people have."""
