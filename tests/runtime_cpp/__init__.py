"""Tests of the C++ SDK: what is installed, what it computes, what it refuses, and all of it under sanitizers."""
