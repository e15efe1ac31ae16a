"""A user's labelled text: which column of a file is the label, read when it is asked for, guessed where it is not."""

import csv
import json
from collections import Counter
from collections.abc import Sequence

from lagvae_lib.data.sources import DataError
from lagvae_lib.data.text import Document, plain_document

LOOKED_AT = 200  # lines; a guess needs no more
FEW = 30  # different values, at most, of what may be a label


def _delimiter(lines: Sequence[str]) -> str | None:
    """TAB or comma, where (nearly) every line has the same number of columns by it, more than one."""
    for mark in "\t,":
        widths = Counter(len(row) for row in _rows(lines[:LOOKED_AT], mark) if row)
        width, often = widths.most_common(1)[0]
        if width > 1 and often >= 0.9 * sum(widths.values()) and (mark == "\t" or any('"' in x for x in lines)):
            return mark
    return None


def _rows(lines: Sequence[str], mark: str) -> list[list[str]]:
    """The columns of lines; only those between commas may be quoted."""
    try:
        return list(csv.reader(lines, delimiter=mark, quoting=csv.QUOTE_NONE if mark == "\t" else csv.QUOTE_MINIMAL))
    except csv.Error:
        return [line.split(mark) for line in lines]


def labelled(lines: Sequence[str], column: str, where: str) -> tuple[list[Document], tuple[str, ...]]:
    """The documents of labelled lines, and the labels' names, whose place is a document's `label`.

    column: its number, from 1, or its name in the first line. Columns stand between TABs, or between commas as in CSV;
    in a file of neither, column 1 is the first word. What is not the label is the text.
    Raises DataError for a column that is not there.
    """
    mark = _delimiter(lines) or ("," if column not in ("", "1") and "," in lines[0] else None)
    rows = _rows(lines, mark) if mark else [line.split(None, 1) for line in lines]
    number, header = _place(rows[0], column, where)
    rows = rows[header:]
    width = len(rows[0]) if rows else 0
    for i, row in enumerate(rows, header + 1):
        if len(row) <= number or (mark and len(row) != width):
            raise DataError(f"{where}, line {i:,}: {len(row)} columns where {width} are expected")
    names = sorted({row[number].strip() for row in rows})
    places = {name: i for i, name in enumerate(names)}
    return [_document(row, number, places) for row in rows], tuple(names)


def _document(row: list[str], number: int, places: dict[str, int]) -> Document:
    text = " ".join(part for i, part in enumerate(row) if i != number)
    return Document(plain_document(text).words, places[row[number].strip()])


def _place(first: list[str], column: str, where: str) -> tuple[int, bool]:
    """The column's index, and whether the first line is a header."""
    names = [name.strip() for name in first]
    if column in names and not column.isdecimal():
        return names.index(column), True
    if not column.isdecimal() or not 1 <= int(column) <= len(names):
        known = ", ".join(map(repr, names[:10]))
        raise DataError(
            f"{where} has no column {column!r}; valid are 1 to {len(names)}, or a name of its first line: {known}"
        )
    return int(column) - 1, False


def suspicions(lines: Sequence[str], path: str) -> list[str]:
    """Warnings for a file that is read as plain text and looks like something else. Raises DataError for JSON lines."""
    part = [line for line in lines[:LOOKED_AT] if line.strip()]
    if sum(map(_is_json, part)) > len(part) / 2:
        raise DataError(
            f"{path} holds JSON, whose braces and keys would be words; write one plain document on each line"
        )
    mark = _delimiter(part)
    firsts = [(line.split(mark) or [""])[0] if mark else (line.split() or [""])[0] for line in part]
    header = mark is not None and firsts[0] not in firsts[1:] and len(set(firsts[1:])) <= FEW
    found = []
    if mark:
        kind = "TABs" if mark == "\t" else "commas, as in CSV"
        found.append(f"warning: the lines have columns between {kind}, and all of them are read as text")
    if header:
        found.append(f"warning: line 1 looks like a header ({part[0][:40]!r}) and is read as a document")
    if _looks_like_labels(firsts[header:], bool(mark)):
        values = ", ".join(sorted(set(firsts[header:]))[:3])
        column = firsts[0] if header else "1"
        found.append(
            f"warning: each line begins with what looks like a label ({values}) and is read as a word; if it is one, "
            f"give --label-column {column} (in a notebook: dataset = '{path}+label_column={column}')"
        )
    return found


def _is_json(line: str) -> bool:
    try:
        return line.lstrip()[:1] in ("{", "[") and isinstance(json.loads(line), (dict, list))
    except (ValueError, RecursionError):
        return False


def _looks_like_labels(firsts: Sequence[str], columns: bool) -> bool:
    """Whether the first column, or the first word, takes few values, as a class does and a text does not."""
    values = set(firsts)
    few = len(values) <= min(FEW, max(2, len(firsts) // 5))
    marked = all(value.isdecimal() or value.startswith("__label__") for value in values)
    return bool(values) and few and (columns or marked)
