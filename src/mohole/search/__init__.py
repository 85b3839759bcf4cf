"""Find features: by label, by the token or text they fire on, by direction, by number; and look into a text token by token."""
