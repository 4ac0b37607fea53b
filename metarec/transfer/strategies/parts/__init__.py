"""What single strategies are made of: candidates and weights of a mixture, feature maps, prototypes of users."""
