"""Ways of training: objectives, attack policies, and the loop."""
