"""Installations of dibr_deploy made of links, in which anything can be missing, broken or a double."""
