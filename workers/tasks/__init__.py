"""Benchmark families: how an answer is read and scored."""
