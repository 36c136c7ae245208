"""Toytown drawn anew, not in use yet: quiet surfaces, light and shadow, settings, patterns, kinds and synonyms.

The miniature models that ship were trained on the world of `patchword.toytown` and know nothing of this one. It
takes that one's place once miniatures are trained on it: its modules move there, `captions` to the training code.
"""
