"""A user's labelled text: which column of a file is the label, read when it is asked for, guessed where it is not."""

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lagvae_lib.data.sources import DataError
from lagvae_lib.data.text import SPECIAL, UNKNOWN, Document, all_lines, plain_document

LOOKED_AT = 200  # lines; a guess needs no more
FEW = 30  # different values, at most, of what may be a label
MARKS = {"\t": "TABs", ",": "commas, as in CSV", ";": "semicolons", "|": "bars"}
# A first word that is a class and no word of a text: a number, fastText's form, what ends in a colon
CLASS = re.compile(r"[+-]?\d+(\.\d+)?:?|__label__\S*|\S+:")
CLASSES = frozenset({"pos", "neg", "positive", "negative", "neutral", "spam", "ham", "true", "false", "yes", "no"})
# A line of JSON that is spread over lines: a bracket, a value or `"key": value`
PART_OF_JSON = re.compile(r'[\[\]{}],?|("[^"]*"\s*:\s*)?([\[{]|"([^"\\]|\\.)*"|-?[\d.eE+-]+|true|false|null),?')
TAGS = re.compile(r"</?[A-Za-z!?][^>]*>")
LONGEST_FIELD = 100  # lines in one quoted field; more, and a quote was never closed


def documents(path: Path, label_column: str | None) -> tuple[list[Document], tuple[str, ...], list[str]]:
    """The documents that are not empty, the labels' names, and warnings about what the file looks like."""
    lines, empty = _lines(path)
    if label_column is None:
        return [plain_document(line) for line in lines], (), [*empty, *suspicions(lines, str(path))]
    read, names, doubts = labelled(lines, label_column, str(path))
    kept = [document for document in read if document.words]
    counts = Counter(names[document.label] for document in kept)
    said = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(10))
    notes = [*empty, f"column {label_column} is the label and no text; {len(names)} values: {said}", *doubts]
    if len(kept) < len(read):
        notes.append(f"warning: {len(read) - len(kept):,} lines have a label and no text, and are left out")
    return kept, names, notes


def _lines(path: Path) -> tuple[list[str], list[str]]:
    """The lines that are not empty, and a note where some are."""
    lines = all_lines(path)
    kept = [line for line in lines if line.strip()]
    return kept, [f"{len(lines) - len(kept):,} empty lines are left out"] if len(kept) < len(lines) else []


def _delimiter(lines: Sequence[str]) -> str | None:
    """What stands between columns, where (nearly) every line has the same number of them, more than one.

    TABs are never part of a text. Other marks may be, so that quotes or a column of few values are asked for.
    """
    for mark in MARKS:
        rows = _rows(lines[:LOOKED_AT], mark)
        width, often = Counter(map(len, rows)).most_common(1)[0]
        even = [row for row in rows if len(row) == width]
        if width > 1 and often >= 0.9 * len(rows) and (mark == "\t" or _quoted(lines) or _label_of(even) is not None):
            return mark
    return None


def _quoted(lines: Sequence[str]) -> bool:
    return any('"' in line for line in lines[:LOOKED_AT])


def _rows(lines: Sequence[str], mark: str) -> list[list[str]]:
    """The columns of lines; only those between other marks than TABs may be quoted, and go on in the next line."""
    quoting = csv.QUOTE_NONE if mark == "\t" else csv.QUOTE_MINIMAL
    try:
        return [row for row in csv.reader((line + "\n" for line in lines), delimiter=mark, quoting=quoting) if row]
    except csv.Error:
        return [line.split(mark) for line in lines]


def _label_of(rows: Sequence[list[str]]) -> int | None:
    """The first column that takes few values, as a class does and a text does not, the header left out."""
    for number, column in enumerate(zip(*rows[1:], strict=True)):
        if 1 < len(set(column)) <= min(FEW, max(2, len(column) // 5)):
            return number
    return None


def _has_header(rows: Sequence[list[str]]) -> bool:
    """Whether the first row is unlike the others: no class among those of the label, or a word above numbers."""
    number, rest = _label_of(rows), list(zip(*rows[1:], strict=True))
    if number is not None and rows[0][number] not in rest[number]:
        return True
    numeric = [i for i, column in enumerate(rest) if all(re.fullmatch(r"[+-]?[\d.]+", value) for value in column)]
    return any(re.search(r"[^\W\d]", rows[0][i]) for i in numeric)


def labelled(
    lines: Sequence[str], column: str, where: str
) -> tuple[list[Document], tuple[str, ...], tuple[str, ...] | list[str]]:
    """The documents of labelled lines, the labels' names, whose place is a document's `label`, and warnings.

    column: its number, from 1, or its name in the first line. Columns stand between TABs, or between commas, semicolons
    or bars as in CSV; in a file of neither, column 1 is the first word. What is not the label is the text.
    Raises DataError for a column that is not there.
    """
    mark = _delimiter(lines) or _mark_in(lines[0], column)
    rows = _rows(lines, mark) if mark else [line.split(None, 1) for line in lines]
    number, header = _place(rows[0], column, where)
    doubts = _doubts(rows, number, column) if mark and not header else []
    rows = rows[header:]
    width = len(rows[0]) if rows else 0
    for i, row in enumerate(rows, header + 1):
        if len(row) <= number or (mark and len(row) != width):
            raise DataError(f"{where}, line {i:,}: {len(row)} columns where {width} are expected")
        if max(part.count("\n") for part in row) > LONGEST_FIELD:
            raise DataError(f"{where}, row {i:,}: a quote that is opened there is never closed")
    names = sorted({row[number].strip() for row in rows})
    places = {name: i for i, name in enumerate(names)}
    if len(names) > max(FEW, len(rows) // 2):
        doubts.append(
            f"warning: column {column} has {len(names):,} different values in {len(rows):,} documents: no class"
        )
    return [_document(row, number, places) for row in rows], tuple(names), doubts


def _mark_in(line: str, column: str) -> str | None:
    """The mark to split by where a column is asked for that a line of words does not have."""
    return next((mark for mark in ",;|" if mark in line), None) if column not in ("", "1") else None


def _doubts(rows: Sequence[list[str]], number: int, column: str) -> list[str]:
    """A warning where a column is named by its number and the first row looks like a header."""
    width = len(rows[0])
    part = [row for row in rows[:LOOKED_AT] if len(row) == width]
    if len(rows[0]) <= number or not _has_header(part):
        return []
    name = rows[0][number].strip()
    return [f"warning: line 1 looks like a header and is read as a document; give its name: --label-column {name}"]


def _document(row: list[str], number: int, places: dict[str, int]) -> Document:
    text = " ".join(part for i, part in enumerate(row) if i != number)
    return Document(plain_document(text).words, places[row[number].strip()])


def _place(first: list[str], column: str, where: str) -> tuple[int, bool]:
    """The column's index, and whether the first line is a header."""
    names = [name.strip() for name in first]
    if column in names and not column.isdecimal():
        return names.index(column), True
    if not column.isdecimal() or not 1 <= int(column) <= len(names):
        known = ", ".join(repr(name[:40]) for name in names[:10])
        raise DataError(
            f"{where} has no column {column!r}; valid are 1 to {len(names)}, or a name of its first line: {known}"
        )
    return int(column) - 1, False


def suspicions(lines: Sequence[str], path: str) -> list[str]:
    """Warnings for a file that is read as plain text and looks like something else. Raises DataError for JSON."""
    part = [line.strip() for line in lines[:LOOKED_AT]]
    if part[0][0] in "[{" and sum(map(_is_json, part)) > len(part) / 2:
        raise DataError(
            f"{path} holds JSON, whose braces and keys would be words; write one plain document on each line"
        )
    found = _of_marks(part)
    if mark := _delimiter(part):
        return found + _of_columns(part, mark, path)
    firsts = [line.split()[0] for line in part]
    return found + ([_said_of_label(firsts, "1", path)] if _are_labels(firsts) else [])


def _is_json(line: str) -> bool:
    if PART_OF_JSON.fullmatch(line):
        return True
    try:
        return line[:1] in ("{", "[") and isinstance(json.loads(line.rstrip(",")), (dict, list))
    except (ValueError, RecursionError):
        return False


def _of_marks(part: Sequence[str]) -> list[str]:
    """Warnings about marks of another program among the words."""
    found, own = [], set(SPECIAL) - {SPECIAL[UNKNOWN]}
    if marked := sum(not own.isdisjoint(line.split()) for line in part):
        found.append(
            f"warning: {marked:,} of the first {len(part):,} lines hold <s>, </s> or <pad>, which the library adds "
            "itself; they are read as unknown words: remove them"
        )
    elif sum(bool(TAGS.match(line)) and line.endswith(">") for line in part) > len(part) / 2:
        found.append("warning: the lines look like HTML or XML, and their tags are read as words: remove them first")
    return found


def _of_columns(part: Sequence[str], mark: str, path: str) -> list[str]:
    """Warnings about a file that has columns and is read as text."""
    found = [f"warning: the lines have columns between {MARKS[mark]}, and all of them are read as text"]
    rows = _rows(part, mark)
    rows = [row for row in rows if len(row) == len(rows[0])]
    if header := _has_header(rows):
        found.append(f"warning: line 1 looks like a header ({part[0][:40]!r}) and is read as a document")
    if (number := _label_of(rows)) is not None:
        column = rows[0][number].strip() if header else str(number + 1)
        found.append(_said_of_label([row[number] for row in rows[header:]], column, path))
    return found


def _said_of_label(values: Sequence[str], column: str, path: str) -> str:
    some = ", ".join(sorted(set(values))[:3])
    place = "begins with" if column == "1" else f"has in column {column}"
    return (
        f"warning: each line {place} what looks like a label ({some}) and is read as a word; if it is one, "
        f"give --label-column {column} (in a notebook: dataset = '{path}+label_column={column}')"
    )


def _are_labels(firsts: Sequence[str]) -> bool:
    """Whether the first words are few and look like classes, or are two alone in many lines."""
    values = set(firsts)
    few = len(values) <= min(FEW, max(2, len(firsts) // 5))
    marked = all(CLASS.fullmatch(value) or value.lower() in CLASSES for value in values)
    return few and (marked or (len(values) == 2 and len(firsts) >= 50))
