"""ImageNet's input: conversion to ArrayRecord, random access, preprocessing, batches by step."""
