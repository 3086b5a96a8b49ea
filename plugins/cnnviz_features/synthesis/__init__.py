"""Pictures made for a network: what they are to excite, what they are made of, how they climb."""
