"""Float64 references, written from the papers' formulas and from nothing in `tutelage`.

`divergences` holds the formulas, `teachers` what each way to hand over a side means; `cases` builds the same numbers
twice, as `tutelage` takes them and as float64 logits for a reference.
"""
