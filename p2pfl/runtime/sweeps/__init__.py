"""Many runs from one scenario: the cases of a matrix, what tuning tries, and who runs them."""
