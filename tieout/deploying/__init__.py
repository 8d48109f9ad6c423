"""What is generated from code for those who deploy: the example of variables, the README of the chart."""
