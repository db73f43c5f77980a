"""The declarative base of every table: constraint names, column kinds and nothing about the study."""

from enum import StrEnum
from typing import Annotated

from sqlalchemy import BigInteger, Enum, Integer, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, mapped_column

# Every constraint has a name that follows from its columns, so a migration on either database can drop what it made.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# SQLite numbers rows only under a primary key called INTEGER (64 bits there); PostgreSQL must be told to use 64 bits.
ROW_ID = BigInteger().with_variant(Integer, "sqlite")

SHA256_HEX = 64  # hexadecimal digits of a SHA-256
LONGEST_NAME = 200  # our choice: keys, slugs and rule names are typed by people; a longer one is a mistake
LONGEST_ENUM = 16  # our choice: fits every state in use with room for later ones

RowId = Annotated[int, mapped_column(ROW_ID, primary_key=True)]
Ref = Annotated[int, mapped_column(ROW_ID)]  # the row id of another table
Micros = Annotated[int, mapped_column(BigInteger)]  # UTC microseconds since 1970-01-01
Sha256 = Annotated[str, mapped_column(String(SHA256_HEX))]  # lower-case hexadecimal
Name = Annotated[str, mapped_column(String(LONGEST_NAME))]
Document = Annotated[str, mapped_column(Text)]  # JSON or prose, stored as it was written


class Base(DeclarativeBase):
    """All tables of the project."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)


def one_of(choices: type[StrEnum], name: str) -> Enum:
    """A text column that only admits the values of `choices`, by a CHECK constraint on both databases."""
    return Enum(
        choices,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=LONGEST_ENUM,
        values_callable=_values,
    )


def _values(choices: type[StrEnum]) -> list[str]:
    return [choice.value for choice in choices]
