"""The records on tieout's topics: one module per record, msgspec Structs, versioned. `schema` exports them for docs/."""
