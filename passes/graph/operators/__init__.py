"""What is known of every operator, in one table: shapes, types, values, and what kind of thing it computes.

table        the operators, one a line: a new one is a line there
record       what a line says
shape_rules  the shapes that an operator makes of those that it reads; moving_rules where it computes nothing
value_rules  the elements of small tensors
functions    functions that numpy does not have
"""

from .record import Operator, Trait, qualified
from .table import OPERATORS, find_operator, is_random, operator_of, traits_of
from .value_rules import elements_of

__all__ = [
    "OPERATORS",
    "Operator",
    "Trait",
    "elements_of",
    "find_operator",
    "is_random",
    "operator_of",
    "qualified",
    "traits_of",
]
