"""The writer that needs nothing but the task: a grammar of instructions.

An instruction is read into clauses (what is done to what, where to, in which order); every clause asks for a deed of
the task's lexicon, and the deeds, with those they need, are the stages. There is no list of sentences: whatever the
words of the lexicon can say is understood, and every word is understood or complained about, courtesy apart.
"""

from __future__ import annotations

import difflib
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn

from robo.core.errors import InstructionError, ProgramError
from tasks.instruct.lexicon import Deed, Lexicon, Say, lexicon
from tasks.instruct.program import LONGEST, Program, StageText
from tasks.stl import Formula, parse
from tasks.stl.syntax import Window
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.empty_container import COLOURS
from tasks.task import Stage

ACTS = {
    "grasp": "grasp|grab|grip|seize|clutch|take hold of|get hold of",
    "lift": "lift|raise|hoist|pick",
    "hold": "hold|keep hold of",
    "take": "take|get|fetch",
    "put": "put|place|move|bring|set|lay|position|deposit|transfer|deliver|let|return",
    "carry": "carry|transport",
    "push": "push|shove|nudge",
    "slide": "slide",
    "pull": "pull|drag|draw",
    "open": "open",
    "close": "close|shut",
    "remove": "remove|extract|withdraw",
    "unpack": "unpack|unload",
    "drop": "drop",
    "throw": "throw|toss|chuck|discard|dispose of|get rid of|bin",
    "insert": "insert|plug|fit|stick",
    "stack": "stack|pile",
    "build": "build|assemble|construct",
    "release": "release|let go|let go of",
    "reach": "reach|reach for|touch|approach",
    "stay": "stay|remain",
    "leave": "leave",
    "cover": "cover",
    "empty": "empty|clear",
    "charge": "charge|dock",
    "attach": "attach|mount|install|screw",
    "shelve": "shelve",
    "store": "store|stow|pack",
    "stand": "stand",
    "be": "belong|go|lie|rest|sit",
}
"""Acts → verbs. What a verb takes beside it (up, out, open, together) may make another act of it."""
PAST = {
    "take": "taken",
    "get": "gotten",
    "bring": "brought",
    "lay": "laid",
    "slide": "slid",
    "hold": "held",
    "throw": "thrown",
    "build": "built",
    "stick": "stuck",
    "draw": "drawn",
    "withdraw": "withdrawn",
    "stand": "stood",
    "go": "gone",
    "lie": "lain",
    "sit": "sat",
    **{verb: verb for verb in ("put", "set", "let", "shut")},
}
DOUBLED = {"grab", "grip", "put", "get", "set", "drop", "plug", "fit", "let", "shut", "sit", "drag"}
PLACED = {"put", "carry"}
"""Acts that say nothing without a place."""
PREPOSITIONS = {
    "in": "in|into|inside|inside of|within|in the inside of",
    "on": "on|onto|upon|on top of|over|above|atop",
    "to": "to|at|for|towards|toward",
    "behind": "behind",
    "off": "from|out of|off",
    "of": "of",
    "with": "with|by|using|by means of",
}
REACHING = 2
"""To go for a thing and grasp it lasts as long as so many further stages, for the experts of `tasks.tabletop`."""
PARTICLES = ("in", "inside", "on", "over", "there", "into", "onto")
"""Words that stand for a place which needs no name: ``put the top on``."""
PLACES = ("in", "on", "to", "behind")
ADVERBS = {
    **{word: word for word in ("up", "down", "out", "open", "together", "left", "right", "aside", "away")},
    **{word: word for word in ("in the air", "upside down", "bottom first", "from above", "out of the way")},
    **{word: word for word in ("alone", "beside it", "where they are", "where it is", "behind where it was", "there")},
    **{f"to {its}{way}{side}": way for way in ("left", "right") for its in ("the ", "its ") for side in ("", " side")},
    "to one side": "aside",
    "to the side": "aside",
    "on the table": "table",
    **dict.fromkeys(("first", "at first", "to begin with"), "first"),
}
LINKS = {
    "": ", : and plus but",
    ".": ". ; !",
    "then": "then|next|afterwards|afterward|after that|after this|finally|lastly|subsequently|thereafter|last",
    "earlier": "before that|before this",
    "after": "after|once|when|as soon as|having",
    "before": "before",
    "until": "until|till|so that|such that|so",
    "not": "without|but not|not|do not|don't|never|rather than|instead of",
}
COURTESY = (
    "please|kindly|could you|can you|would you|will you|i want you to|i would like you to|i'd like you to|i want|"
    "i would like|i'd like|we want|you should|you must|you have to|you need to|try to|make sure that|make sure|"
    "ensure that|ensure|be sure to|go ahead and|now|just|thanks|thank you|hey|hello|also|too|as well|your task is to|"
    "your job is to|the task is to|you|i need you to|let us|let's|see to it that|take care that"
)
BE = (
    "should|must|is|are|be|has to|have to|needs to|need to|ought to|shall|will|to be|being|been|gets|ends up|"
    "end up|ending up|was|were|is supposed to|are supposed to"
)
ARTICLES = "the|a|an|its|their|this|that|these|those|his|her|your|my"
PRONOUNS = "it|them|they|that"
NUMBERS = "one|two|three|four|five|six|seven|eight|nine|ten"
COUNTS = {
    **{text: i + 1 for i, number in enumerate(NUMBERS.split("|")) for text in (number, str(i + 1))},
    **dict.fromkeys(("both", "pair of", "pair"), 2),
}
ALL = "all|every|each"
MORE = "other|another|second|remaining"


@dataclass(frozen=True)
class Token:
    """Words that belong together, and what they may be: kind → value."""

    text: str
    kinds: dict[str, str]
    plural: bool = False


@dataclass(frozen=True)
class Phrase:
    """What a group of words around a noun may mean.

    Attributes:
        text: As it was said.
        nouns: Of the lexicon, whichever it may be; empty for a pronoun.
        count: How many; None where that is not said, 0 for all.
        plural: More than one.
        more: One besides those spoken of before.
        picks: What its adjectives choose.
    """

    text: str
    nouns: tuple[str, ...] = ()
    count: int | None = None
    plural: bool = False
    more: bool = False
    picks: tuple[str, ...] = ()


@dataclass
class Clause:
    """What one verb says."""

    link: str = ""
    starts: bool = False
    act: str = ""
    or_act: str = ""
    """What the verb may mean where no deed is what it means first."""
    verb: str = ""
    stated: bool = False
    objects: list[Phrase] = field(default_factory=list)
    places: list[tuple[str, Phrase]] = field(default_factory=list)
    tools: list[Phrase] = field(default_factory=list)
    adverbs: list[str] = field(default_factory=list)
    parts: list[Phrase] | None = None
    """The list that a further noun after ``and`` goes on with."""

    def __bool__(self) -> bool:
        return bool(self.verb or self.objects or self.places or self.tools or self.adverbs or self.stated)

    @property
    def text(self) -> str:
        """For messages."""
        places = (f"{kind} {phrase.text}" for kind, phrase in self.places)
        things, tools = " and ".join(p.text for p in self.objects), (f"with {p.text}" for p in self.tools)
        return " ".join(filter(None, (self.verb, things, *self.adverbs, *places, *tools)))


@dataclass(frozen=True)
class Wish:
    """A deed that a clause asks for, by which act, of what."""

    deed: Deed
    clause: int
    act: str = ""
    subject: Phrase | None = None


class GrammarWriter:
    """Writes the program that an instruction means, from its words and the scene's alone.

    Args:
        check: What is wrong with a program that fits its task, one line each.
    """

    def __init__(self, check: Callable[[Program], list[str]] | None = None) -> None:
        self._check = check

    def write(self, task: TabletopTask, instruction: str) -> Program:
        """The program of an instruction; the same words give the same program.

        Raises:
            InstructionError: Some word or deed is none of the scene; says which, and what there is.
            ProgramError: The check complains of it.
        """
        if len(instruction) > LONGEST:
            raise InstructionError(
                f"an instruction has at most {LONGEST} characters, this one {len(instruction)}; say it shorter"
            )
        program = _Reader(task).program(instruction)
        if self._check is not None and (complaints := self._check(program)):
            raise ProgramError(f"the program of {instruction!r} for {task.name} does not do", complaints)
        return program


class _Reader:
    def __init__(self, task: TabletopTask) -> None:
        self.task, self.lexicon = task, lexicon(task)
        self.nouns = self.lexicon.nouns
        self.words = dict(_vocabulary(self.lexicon))
        self.longest = max(len(words) for words in self.words)
        self.deeds = {deed.text: deed for deed in self.lexicon.deeds}
        self.chain = [deed.text for deed in self.lexicon.deeds]

    def fail(self, message: str) -> NoReturn:
        names = [noun.words.split("|")[0] for noun in self.nouns.values()]
        colours = [noun.like.partition(" ")[0] for noun in self.nouns.values()]
        whole = (f"{like} {name}" if names.count(name) > 1 else name for name, like in zip(names, colours, strict=True))
        things = ", ".join(thing.strip() for thing in whole)
        deeds = ", ".join(deed.text for deed in self.lexicon.deeds)
        raise InstructionError(f"{message}; {type(self.task).name} has: {things}; and one can: {deeds}")

    # ---- words ---------------------------------------------------------------------

    def tokens(self, text: str) -> list[Token]:
        """The words of a text, the longest that belong together first."""
        plain = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
        words = re.findall(r"[,;:.!]|[^\s,;:.!?\"()\[\]–—-]+", re.sub(r"(?<=\w)'s\b", " 's", plain))
        found, i = [], 0
        while i < len(words):
            for length in range(min(self.longest, len(words) - i), 0, -1):
                token = self.words.get(tuple(words[i : i + length]))
                if token is not None:
                    break
            else:
                kinds = {"noun", "like", "verb", "prep", "adverb"}
                known = [token.text for token in self.words.values() if token.kinds.keys() & kinds]
                close = difflib.get_close_matches(words[i], known, n=1, cutoff=0.7)
                match = f": did you mean {close[0]!r}?" if close else ""
                self.fail(f"{words[i]!r} is not understood{match}")
            if "courtesy" not in token.kinds:
                found.append(token)
            i += length
        return found

    # ---- phrases --------------------------------------------------------------------

    def phrase(self, tokens: Sequence[Token], i: int) -> tuple[Phrase, int] | None:
        """The phrase around a noun that starts at token `i`, and where it ends; None where none does."""
        start, count, more, likes = i, None, False, []
        heads: list[Token] = []
        owner: set[str] = set()
        while i < len(tokens):
            kinds = tokens[i].kinds
            if heads and "noun" not in kinds and "'s" not in kinds:
                break
            if "noun" in kinds and (not ("like" in kinds or "more" in kinds) or not self._goes_on(tokens, i + 1)):
                heads.append(tokens[i])
                if tokens[i].text == "everything":
                    count = 0
            elif "'s" in kinds and heads:
                owner, heads, likes = set(self._compound(heads)), [], []
            elif "count" in kinds and count is None:
                count = int(kinds["count"])
                if i + 1 < len(tokens) and "of" in tokens[i + 1].kinds:
                    i += 1
            elif "more" in kinds:
                more = True
            elif "like" in kinds:
                likes.append(tokens[i].text)
            elif "article" in kinds and not heads and not likes:
                pass
            else:
                break
            i += 1
        said = tokens[start:i]
        text = " ".join(token.text for token in said)
        if not heads:
            if not said or "article" in said[-1].kinds:
                return self._pronoun(tokens, start)
            if likes and "count" in said[-1].kinds and said[-1].text == "one":  # the green one
                return self._meant(text, [n for n in self.nouns if self.nouns[n].like], likes, None, False, more), i
            if more or (count is not None and not likes):
                return Phrase(text=text, count=count, more=more, plural=count != 1 and not more), i
            return None
        nouns = self._compound(heads)
        if owner:
            nouns = [n for n in nouns if owner & set(self.nouns[n].of.split())] or self.fail(f"there is no {text}")
        if i + 1 < len(tokens) and "of" in tokens[i].kinds and (owning := self.phrase(tokens, i + 1)):
            whole, i = owning
            text = f"{text} of {whole.text}"
            fits = [n for n in nouns if not whole.nouns or set(self.nouns[n].of.split()) & set(whole.nouns)]
            if not fits:
                self.fail(f"there is no {text}")
            nouns, picks = fits, whole.picks
        else:
            picks = ()
        found = self._meant(text, nouns, likes, count, heads[-1].plural, more)
        return replace(found, picks=found.picks + picks), i

    def _goes_on(self, tokens: Sequence[Token], i: int) -> bool:
        """Whether a noun follows, so that the word before it is an adjective."""
        while i < len(tokens) and "like" in tokens[i].kinds and "noun" not in tokens[i].kinds:
            i += 1
        return i < len(tokens) and ("noun" in tokens[i].kinds or tokens[i].text in ("one", "ones"))

    def _pronoun(self, tokens: Sequence[Token], i: int) -> tuple[Phrase, int] | None:
        if i < len(tokens) and "pronoun" in tokens[i].kinds:
            return Phrase(text=tokens[i].text), i + 1
        return None

    def _compound(self, heads: list[Token]) -> list[str]:
        """Of ``cabinet door`` the door, if it is one of the cabinet's."""
        nouns = heads[-1].kinds["noun"].split("|")
        for owner in heads[:-1]:
            of = set(owner.kinds["noun"].split("|"))
            fits = [n for n in nouns if of & set(self.nouns[n].of.split())]
            if not fits:
                self.fail(f"there is no {' '.join(token.text for token in heads)}")
            nouns = fits
        return nouns

    def _meant(
        self, text: str, nouns: Iterable[str], likes: list[str], count: int | None, plural: bool, more: bool
    ) -> Phrase:
        known = [n for n in nouns if all(w in self.nouns[n].like.split() or w in self.nouns[n].pick for w in likes)]
        if not known:
            real = [f"{self.nouns[n].like} {self.nouns[n].words.split('|')[0]}".strip() for n in nouns]
            plain = " ".join(word for word in text.split() if word not in ARTICLES.split("|"))
            self.fail(f"there is no {plain}, only {' or '.join(dict.fromkeys(real))}")
        most = max(self.nouns[n].members for n in known)
        if (count or 0) > most or (plural and most == 1 and not self._plural_by_nature(known)):
            there = "is one" if most == 1 else f"are {most}"
            self.fail(f"there {there} of what {text!r} names")
        if more and len(known) == 1 and most == 1:
            self.fail(f"there is one of what {text!r} names")
        picks = tuple(dict.fromkeys(pick for n in known for w in likes if (pick := self.nouns[n].pick.get(w, ""))))
        return Phrase(text=text, nouns=tuple(known), count=count, plural=plural, more=more, picks=picks)

    def _plural_by_nature(self, nouns: list[str]) -> bool:
        return any(word.endswith("s") for n in nouns for word in self.nouns[n].words.split("|"))

    # ---- clauses ---------------------------------------------------------------------

    def clauses(self, tokens: Sequence[Token]) -> list[Clause]:
        """What a text says, verb by verb, what is left unsaid filled in from before."""
        found: list[Clause] = []
        waiting: list[Phrase] = []
        for clause in self._split(tokens):
            self._complete(clause, found, waiting)
        if waiting:
            self.fail(f"{' and '.join(p.text for p in waiting)!r} is no instruction: it lacks a verb")
        if not found:
            self.fail("the instruction says nothing")
        return found

    def _split(self, tokens: Sequence[Token]) -> Iterator[Clause]:
        clause, i = Clause(starts=True), 0
        while i < len(tokens):
            kinds, text = tokens[i].kinds, tokens[i].text
            if "noun" in kinds and clause.verb and (read := self.phrase(tokens, i)):
                pass
            elif "link" in kinds and not (text in ("next", "so") and clause.verb and not clause.objects):
                link = kinds["link"]
                starts = (not clause and clause.starts) or link == "." or text in ("and", "but")
                if clause:
                    yield clause
                    clause = Clause(link="" if link == "." else link, starts=starts)
                else:
                    clause.link = link if link not in ("", ".") else clause.link
                    clause.starts = starts
                i += 1
                continue
            else:
                read = None if self._is_verb(clause, tokens, i) else self.phrase(tokens, i)
            ahead = clause.starts and clause.link in ("after", "before") and clause.verb and clause.objects
            if read is None and ahead and self._is_verb(Clause(), tokens, i):  # after opening the box take ...
                yield clause
                clause = Clause()
            if read:
                phrase, i = read
                if clause.verb and clause.objects and not clause.parts and clause.stated:
                    self._agent(clause)
                clause.objects.append(phrase)
                clause.parts = clause.objects
            elif "verb" in kinds and not clause.verb:
                clause.verb, clause.act = text, kinds["verb"]
                clause.parts = None
                i += 1
            elif "be" in kinds:
                clause.stated = True
                i += 1
            elif "of" in kinds or "prep" in kinds:
                following = i + 1
                doing = following < len(tokens) and self._is_verb(Clause(), tokens, following)
                if doing and text in ("by", "to", "for"):
                    yield clause
                    clause = Clause(link="until")
                    i += 1
                    continue
                read = self.phrase(tokens, following)
                particle = text in ("in", "on", "over", "down") and clause.verb and not clause.objects
                if particle and not clause.stated and clause.act not in ("be", "stay"):
                    clause.adverbs.append(text)
                    i += 1
                elif read:
                    phrase, i = read
                    self._placed(clause, kinds.get("prep", "of"), phrase)
                elif text in ("in", "inside", "on", "over", "onto", "into", "off") and clause:
                    clause.adverbs.append(text)
                    i += 1
                else:
                    rest = (t.text for t in tokens[following:] if not t.kinds.keys() & {"article", "count"})
                    self.fail(f"{text!r} is not understood before {next(rest, 'the end')!r}")
            elif "adverb" in kinds:
                clause.adverbs.append(kinds["adverb"])
                i += 1
            else:
                rest = (t.text for t in tokens[i:] if not t.kinds.keys() & {"article", "count"})
                hint = f" after {clause.text!r}" if clause else ""
                self.fail(f"{next(rest, text)!r} is not understood here{hint}")
        if clause:
            yield clause

    def _is_verb(self, clause: Clause, tokens: Sequence[Token], i: int) -> bool:
        """Whether a word that may be a verb is one: the first one of a clause, unless a noun is what fits."""
        kinds = tokens[i].kinds
        if clause.verb or "verb" not in kinds:
            return False
        if "noun" in kinds or "like" in kinds:  # 'stand', 'dock': a verb only where a clause begins, or after 'should'
            if clause.stated and "be" in tokens[i - 1].kinds:
                return True
            return not clause and (i + 1 >= len(tokens) or bool(self.phrase(tokens, i + 1)))
        return True

    def _agent(self, clause: Clause) -> None:
        """Of ``the gripper should touch the ball`` the gripper is nothing that is touched."""
        (subject,) = clause.objects if len(clause.objects) == 1 else (None,)
        if subject is None or "gripper" not in subject.nouns:
            self.fail(f"{clause.text!r} is not understood: only the gripper does anything")
        clause.objects.clear()

    def _placed(self, clause: Clause, kind: str, phrase: Phrase) -> None:
        if kind == "with":
            clause.tools.append(phrase)
            clause.parts = clause.tools
        elif kind == "of":
            self.fail(f"'of {phrase.text}' is not understood here")
        else:
            clause.places.append((kind, phrase))
            clause.parts = None

    def _complete(self, clause: Clause, found: list[Clause], waiting: list[Phrase]) -> None:
        """Fill in what a clause leaves unsaid, and add it; or add its parts to the clause before."""
        before = found[-1] if found else None
        if clause.link == "not":
            self._settle(clause)
            clause.act = f"not-{clause.act}" if clause.act else "not"
            clause.verb = f"not {clause.verb}".strip()
            found.append(clause)
            return
        if not clause.verb and not clause.stated:
            if clause.objects and not clause.places and not clause.tools and not clause.adverbs:
                if before is None or (clause.link in ("after", "before")):
                    waiting += clause.objects
                    return
                if clause.link == "" and not any(p.more for p in clause.objects):
                    self._go_on(before, clause.objects)
                    return
                clause.places = list(before.places)
                clause.adverbs = [a for a in before.adverbs if a != "first"]
            elif clause.objects and before is not None and clause.link == "" and self._lacks_place(before):
                before.objects += clause.objects
                before.places, before.adverbs = clause.places, before.adverbs + clause.adverbs
                before.tools += clause.tools
                self._settle(before)
                return
            elif not clause.objects:
                if before is None:
                    self.fail(f"{clause.text!r} is no instruction: it lacks a verb")
                if clause.link not in ("", "then"):
                    self.fail(f"{clause.text!r} is not understood: it lacks a verb")
                before.places += clause.places
                before.tools += clause.tools
                before.adverbs += clause.adverbs
                return
            if before is not None:
                clause.verb, clause.act = before.verb, before.act
            else:
                clause.stated = True
        if clause.stated and not clause.verb:
            clause.verb = "be"
            clause.act = "be"
        clause.objects[:0] = waiting
        waiting.clear()
        self._settle(clause)
        found.append(clause)

    def _lacks_place(self, before: Clause) -> bool:
        """Whether ``put the door`` waits for ``and the top on the cabinet``."""
        known = any(_to(say) for deed in self.lexicon.deeds for say in deed.says if before.act in say.acts.split())
        return bool(known and before.verb and before.objects and not before.places and not before.adverbs)

    def _go_on(self, before: Clause, phrases: list[Phrase]) -> None:
        if before.parts is not None:
            before.parts += phrases
        elif before.places:
            kind, _ = before.places[-1]
            before.places += [(kind, phrase) for phrase in phrases]
        else:
            before.objects += phrases

    def _settle(self, clause: Clause) -> None:
        """What verb and adverbs together ask for."""
        adverbs, act = set(clause.adverbs), clause.act
        if "table" in adverbs:
            clause.adverbs.remove("table")
            clause.places.append(("on", Phrase(text="table", nouns=("table",))))
        if act == "build":
            clause.tools += [phrase for kind, phrase in clause.places if kind == "off"]
            clause.places = [(kind, phrase) for kind, phrase in clause.places if kind != "off"]
            clause.parts = clause.tools
        to = any(kind in PLACES for kind, _ in clause.places)
        off = "out" in adverbs or any(kind == "off" for kind, _ in clause.places)
        if act in ("cover", "close") and clause.tools:
            clause.places, clause.objects, clause.tools = [("on", p) for p in clause.objects], clause.tools, []
            act = "cover"
        elif "open" in adverbs and act in ("pull", "slide", "push", "put", "be", "open", "draw"):
            act = "open"
        elif "together" in adverbs and act in ("put", "insert"):
            act = "build"
        elif "up" in adverbs and act in ("lift", "take"):
            act = "lift"
        elif act == "take":
            act = "put" if to and not off else "remove" if off else "grasp"
            clause.or_act = "grasp"
        elif act == "drop":
            act = "put" if to or adverbs & {"in", "inside", "there"} else "release"
        elif act in ("stand", "be"):
            act = "put"
        elif act == "put" and off and not to and not adverbs & {"in", "inside", "on", "there"}:
            act = "remove"
        elif "away" in adverbs and act == "put":
            act = "store" if not to else "put"
        clause.act = act

    # ---- deeds -------------------------------------------------------------------------

    def wishes(self, clauses: list[Clause]) -> list[Wish]:
        """The deed of every clause."""
        found: list[Wish] = []
        begun: list[Wish] = []
        for i, clause in enumerate(clauses):
            before = [p for c in reversed(clauses[:i]) for p in _spoken(c)]
            later = [p for c in clauses[i + 1 :] for p in _spoken(c)]
            meant = [w.subject for w in reversed(found) if w.subject] + before
            meant = [p for p in clause.objects if p.nouns] + [p for p in meant if p.nouns] + later
            lasting = self._lasting(clause, found, i)
            for wish in [lasting] if lasting else self._asked(clause, meant, i):
                more = wish
                if wish.subject and wish.deed.count:
                    number = self._number(wish.subject, wish.act, found)
                    more = replace(wish, deed=self._times(wish.deed, number))
                takes = wish.deed.holds and wish.deed.count and (more.deed.count > 1 or wish.act == "remove")
                if takes or (wish.act == "empty" and not clause.places):
                    begun.append(more)
                found.append(wish if wish.deed.holds else more)
        for wish in begun:
            if not any(w.clause > wish.clause and w.deed.count >= wish.deed.count and not w.deed.holds for w in found):
                self.fail(f"{clauses[wish.clause].text!r} needs to say where that goes: there is one gripper")
        return found

    def _lasting(self, clause: Clause, found: list[Wish], i: int) -> Wish | None:
        """To hold on or let go after a deed asks for no other one; it must be what that deed ends with."""
        last = next((w for w in reversed(found) if not w.deed.keep), None)
        if clause.act not in ("release", "hold", "stay") or last is None or clause.places:
            return None
        if clause.act == "release" and last.deed.holds:
            self.fail(f"{clause.text!r} after {last.deed.text!r} is nothing this task can tell")
        if clause.act == "hold" and not last.deed.holds:
            self.fail(f"{clause.text!r} does not fit: after {last.deed.text!r} nothing is held")
        if clause.act == "stay" and last.deed.holds:
            self.fail(f"{clause.text!r} does not fit after {last.deed.text!r}")
        known = {n for say in last.deed.says for n in (*say.on.split(), *say.tools.split(), *_to(say))} | {"gripper"}
        for phrase in clause.objects:
            if phrase.nouns and not known & set(phrase.nouns):
                self.fail(f"{clause.text!r} does not fit after {last.deed.text!r}")
        if others := set(clause.adverbs) - {"there", "in the air", "then"}:
            self.fail(f"{others.pop()!r} is not understood after {clause.verb!r}")
        return replace(last, clause=i)

    def _asked(self, clause: Clause, spoken: list[Phrase], i: int) -> list[Wish]:
        """What a clause asks for: one deed, or one for each of its objects."""
        whole = self._wish(clause, spoken, i)
        if isinstance(whole, Wish):
            return [whole]
        if len(clause.objects) > 1:
            each = [self._wish(replace(clause, objects=[phrase]), [phrase, *spoken], i) for phrase in clause.objects]
            wishes = [wish for wish in each if isinstance(wish, Wish)]
            if len({wish.deed.text for wish in wishes}) == len(each):
                return wishes
            whole = next((wish for wish in each if isinstance(wish, _Misfit)), whole)
        self.fail(whole.reason or f"nothing here can be asked by {clause.text!r}")

    def _wish(self, clause: Clause, spoken: list[Phrase], i: int) -> Wish | _Misfit:
        best = _Misfit(0, "")
        for act in dict.fromkeys(filter(None, (clause.act, clause.or_act))):
            said = replace(clause, act=act)
            for deed in self.lexicon.deeds:
                for say in deed.says:
                    fit = self._fit(deed, say, said, spoken)
                    if isinstance(fit, Phrase):
                        return Wish(deed=deed, clause=i, act=act, subject=fit)
                    best = max(best, fit, key=lambda misfit: misfit.far)
        return best

    def _fit(self, deed: Deed, say: Say, clause: Clause, spoken: list[Phrase]) -> Phrase | _Misfit:
        """The object of a clause as a way to ask for a deed has it; else how far it fits and why no further."""
        acts = say.acts.split()
        if clause.act not in acts and not ("not" in acts and clause.act.startswith("not")):
            return _Misfit(0, "")
        on = set(say.on.split())
        on |= {name for name, noun in self.nouns.items() if noun.group and noun.group in on}
        subject = self._object(say, clause, spoken, on)
        if subject is not None and not deed.keep:
            for phrase in (subject, *(p for _, p in clause.places), *clause.tools):
                single = not deed.count or phrase is not subject
                if single and self._many(phrase):
                    return _Misfit(2, f"{clause.text!r}: the task is about one {phrase.nouns[0]}")
        if subject is None:
            said = " and ".join(p.text for p in clause.objects)
            what = f"{said!r} is nothing one can {clause.verb} here" if said else f"{clause.text!r} says not what"
            return _Misfit(1, what)
        to, placed = _to(say), False
        for kind, phrase in clause.places:
            options = phrase.nouns or next((p.nouns for p in spoken if set(p.nouns) & {*to, *say.off.split()}), ())
            if any(n in to and kind in (to[n] or PLACES) for n in options):
                placed = True
            elif not (set(options) & set(say.off.split()) and kind in ("off", "in", "on")):
                return _Misfit(3, f"{clause.text!r}: {kind} {phrase.text!r} does not fit here")
        for phrase in clause.tools:
            if phrase.nouns and not set(phrase.nouns) & {*say.tools.split(), "gripper"}:
                return _Misfit(3, f"{phrase.text!r} is nothing to {clause.verb} with")
        how = _how(say)
        for adverb in clause.adverbs:
            if adverb in how or (adverb in PARTICLES and (to or say.off)):
                placed = True
            elif not self._manner(adverb, clause, say):
                return _Misfit(3, f"{adverb!r} is not understood in {clause.text!r}")
        if to and clause.act in PLACED and not placed:
            return _Misfit(2, f"{clause.text!r} does not say where to")
        return subject

    def _many(self, phrase: Phrase) -> bool:
        """Whether a phrase means several of those of which an instance names one."""
        named = bool(phrase.nouns) and all(self.nouns[n].pick for n in phrase.nouns)
        return named and (phrase.more or (phrase.count != 1 and (phrase.plural or phrase.count is not None)))

    def _manner(self, adverb: str, clause: Clause, say: Say) -> bool:
        """Whether an adverb is part of its verb, and says nothing more."""
        match adverb:
            case "first" | "then":
                return True
            case "open":
                return clause.act == "open"
            case "together":
                return clause.act == "build"
            case "up":
                return clause.act in ("lift", "hold", "not-lift")
            case "down":
                return clause.act in ("put", "insert", "push")
            case "away":
                return clause.act in ("throw", "store", "put")
            case "out":
                return bool(say.off) or clause.act in ("open", "pull", "empty")
        return False

    def _object(self, say: Say, clause: Clause, spoken: list[Phrase], on: set[str]) -> Phrase | None:
        if not clause.objects:
            if say.bare or clause.act == "empty":
                return next((p for p in spoken if set(p.nouns) & on), Phrase(text=""))
            return None
        found: list[Phrase] = []
        for phrase in clause.objects:
            if not phrase.nouns and (phrase.more or phrase.count is not None):
                known = next((p for p in spoken if set(p.nouns) & on), None)
                if known is None and (say.on not in self.nouns or self.nouns[say.on].members == 1):
                    return None
                phrase = replace(phrase, nouns=known.nouns if known else (say.on,))
            options = [phrase] if phrase.nouns else [p for p in spoken if p.nouns]
            meant = next((p for p in options if set(p.nouns) & on), None)
            if meant is None:
                return None
            found.append(meant)
        subject = found[0]
        if len(found) > 1:
            each = [min((n for n in p.nouns if n in on), key=lambda n: bool(self.nouns[n].group)) for p in found]
            group = {self.nouns[n].group for n in each}
            if len(group) == 1 and all(group) and len(set(each)) == len(each):  # the cube, the cylinder and the cross
                (whole,) = group
                return Phrase(text=" and ".join(p.text for p in found), nouns=(whole,), count=len(each))
            if len(set(each)) == 1:
                return None
        return subject

    def _number(self, phrase: Phrase, act: str, found: list[Wish]) -> int:
        """How many of a group a phrase means."""
        group = next((self.nouns[n].group for n in phrase.nouns if not self._groups(n)), "")
        if group and not any(self._groups(n) for n in phrase.nouns):
            others = [n for n in self.nouns if self.nouns[n].group == group]
            self.fail(f"the task's signals do not tell {', '.join(others)} apart: say how many, not which")
        most = max(d.count for d in self.lexicon.deeds)
        if not phrase.more:
            everything = act == "empty" or phrase.count == 0 or (phrase.plural and phrase.count is None)
            return most if everything else phrase.count or 1
        done = max((w.deed.count for w in found if not w.deed.holds), default=0)
        if not done or done == most:
            there = f"there are {most}" if done else "none was spoken of before"
            self.fail(f"{phrase.text!r}: other than which? {there}")
        return most if phrase.plural else done + (phrase.count or 1)

    def _groups(self, noun: str) -> bool:
        return not self.nouns[noun].group

    def _times(self, deed: Deed, number: int) -> Deed:
        """A deed done to so many."""
        alike = (d for d in self.lexicon.deeds if d.count == number and d.says == deed.says)
        return next(alike, replace(deed, count=number))

    # ---- programs ------------------------------------------------------------------------

    def program(self, instruction: str) -> Program:
        clauses = self.clauses(self.tokens(instruction))
        wishes = self.wishes(clauses)
        self._consistent(clauses, wishes)
        self._ordered(clauses, wishes)
        asked = [w.deed for w in wishes]
        names = set().union(*(self._closure(deed) for deed in asked))
        deeds = [deed for deed in self.lexicon.deeds if deed.text in names]
        doing = [deed for deed in deeds if not deed.keep]
        if not doing:
            self.fail(f"{instruction!r} asks for nothing to be done")
        for deed in doing[:-1]:
            if deed.holds and not any(deed.text in self._closure(d) for d in doing if d is not deed):
                last = doing[-1].text
                self.fail(f"after {deed.text!r} the gripper is not free to {last!r}; say first where that goes")
        own = {stage.name for stage in self.task.stages}
        if {s for deed in doing for s in deed.stages} >= own:
            return Program.of(self.task).model_copy(update={"instruction": instruction})
        return self._partial(instruction, doing, [deed.done for deed in deeds if deed.keep])

    def _closure(self, deed: Deed) -> set[str]:
        return {deed.text}.union(*(self._closure(self.deeds[need]) for need in deed.needs))

    def _consistent(self, clauses: list[Clause], wishes: list[Wish]) -> None:
        """One instruction, one choice: the task's signals speak of one drawer, one tray, one half."""
        picked: dict[str, str] = {}
        for wish in wishes:
            clause = clauses[wish.clause]
            ways = {k: v for say in wish.deed.says for k, v in _how(say).items() if v}
            chosen = [(a, ways[a]) for a in clause.adverbs if a in ways]
            for phrase in (*clause.objects, *(p for _, p in clause.places), *clause.tools):
                chosen += [(phrase.text, pick) for pick in phrase.picks]
            picked |= {pick: picked.get(pick, text) for text, pick in chosen}
        if len(picked) > 1:
            said = " and ".join(repr(text) for text in picked.values())
            self.fail(f"{said} do not go together: the task is about one of them")

    def _ordered(self, clauses: list[Clause], wishes: list[Wish]) -> None:
        """What is said about order must be how the task can be done."""
        pairs: set[tuple[int, int]] = set()  # first, later
        main: list[int] = []
        ahead: list[tuple[str, int]] = []
        for i, clause in enumerate(clauses):
            if clause.act.startswith("not"):
                continue
            if clause.link in ("after", "before"):
                if clause.starts or not main:
                    ahead.append((clause.link, i))
                    continue
                pairs.add((i, main[-1]) if clause.link == "after" else (main[-1], i))
                continue
            for link, sub in ahead:
                pairs.add((sub, i) if link == "after" else (i, sub))
            ahead.clear()
            if clause.link == "then" and main:
                pairs |= {(j, i) for j in main}
            if clause.link == "earlier" and main:
                pairs.add((i, main[-1]))
            main.append(i)
        for i, clause in enumerate(clauses):
            if "first" in clause.adverbs:
                pairs |= {(i, j) for j in range(len(clauses)) if j != i and not clauses[j].act.startswith("not")}
        by = {w.clause: w for w in wishes}
        for first, later in pairs:
            if by[first].deed.stages and self._place(by[first].deed) > self._place(by[later].deed):
                self.fail(f"{by[later].deed.text!r} cannot come after {by[first].deed.text!r}: here it comes before")
        for i, early in enumerate(wishes):
            for late in wishes[i + 1 :]:
                back = late.deed.holds and late.deed.text in self._closure(early.deed) - {early.deed.text}
                told = (late.clause, early.clause) in pairs or clauses[late.clause].link == "until"
                if back and not early.deed.holds and not told:
                    self.fail(f"{late.deed.text!r} cannot come after {early.deed.text!r}: here it comes before")

    def _place(self, deed: Deed) -> int:
        return self.chain.index(deed.text)

    def _partial(self, instruction: str, deeds: list[Deed], kept: list[str]) -> Program:
        """Some of the task: their stages, the goal of the last deed, windows as long as the task gives them."""
        stages = [stage for deed in deeds for stage in self._stages(deed, alone=deed is deeds[-1])]
        goal = " and ".join(str(part) for text in (self._done(deeds[-1]), *kept) for part in parse(text).conjuncts)
        stages[-1] = replace(stages[-1], condition=goal)
        if len(stages) == 1 and (only := stages[0]).distance and not only.shaping:
            # Half, or waiting beside it would pay an episode nearly as much as success does.
            stages = [replace(only, shaping=f"0.5 * (1 - tanh(max({only.distance}, 0) / {only.scale:g}))")]
        lasts, at, parts = self._durations(), 0.0, []
        for deed in deeds:
            at += lasts[deed.text]
            if deed is not deeds[-1]:
                parts.append((at, self._done(deed)))
        windows = [f"F[0,{_half(t):g}]({done})" for t, done in parts]
        most = self.task.horizon_s - 0.5
        windows.append(f"F[0,{min(_half(at), most):g}](G[0,0.5]({goal}))")
        windows += [str(part) for part in self._conjuncts if _kind(part) == "G"]
        return Program(
            instruction=instruction,
            stages=tuple(StageText(**{f: getattr(s, f) for f in StageText.model_fields}) for s in stages),
            mission=" and ".join(windows),
            goal=goal,
        )

    def _stages(self, deed: Deed, alone: bool = True) -> list[Stage]:
        """The stages a deed adds; its own ones where it comes last."""
        named = {stage.name: stage for stage in self.task.stages}
        return [
            stage if isinstance(stage, Stage) else named[stage]
            for stage in deed.stages
            if alone or not isinstance(stage, Stage)
        ]

    def _done(self, deed: Deed) -> str:
        if deed.done:
            return deed.done
        return self._stages(deed)[-1].condition if deed.stages else self.task.goal

    @property
    def _conjuncts(self) -> tuple[Formula, ...]:
        return self.task.mission_formula.conjuncts

    def _reaches(self, deed: Deed) -> bool:
        """Whether the arm goes for something that it does not hold yet."""
        return deed.count > 1 or (deed.holds and not any(self.deeds[need].holds for need in deed.needs))

    def _durations(self) -> dict[str, float]:
        """How long every deed may last [s]: between the ends of the windows of the task's mission, shared by stages."""
        doing = [deed for deed in self.lexicon.deeds if not deed.keep]
        ends: dict[int, float] = {}
        for part in self._conjuncts:
            if not isinstance(part, Window) or _kind(part) != "F":
                continue
            until, wanted = part.interval.numbers()[1], _atoms(str(part))
            done = [i for i, deed in enumerate(doing) if wanted <= _atoms(self._done(deed))]
            ends[done[0] if done else len(doing) - 1] = until
        ends.setdefault(len(doing) - 1, self.task.horizon_s - 0.5)
        steps = [len(deed.stages) + (REACHING if i == 0 or self._reaches(deed) else 0) for i, deed in enumerate(doing)]
        lasts, start, before = {}, 0, 0.0
        for end, until in sorted(ends.items()):
            span = doing[start : end + 1]
            shares = steps[start : end + 1]
            lasts |= {d.text: (until - before) * n / (sum(shares) or 1) for d, n in zip(span, shares, strict=True)}
            start, before = end + 1, until
        return lasts


def _spoken(clause: Clause) -> list[Phrase]:
    """What pronouns may mean, the last object first, then places."""
    return [p for p in (*reversed(clause.objects), *(p for _, p in reversed(clause.places))) if p.nouns]


@dataclass(frozen=True)
class _Misfit:
    """Why a way to ask for a deed is none that a clause takes; `far`: how much else fits."""

    far: int
    reason: str


def _to(say: Say) -> dict[str, tuple[str, ...]]:
    """Where a deed takes its object, and the prepositions that say it; none: any."""
    pairs = (entry.partition(":") for entry in say.to.split())
    return {noun: tuple(kinds.split(",")) if kinds else () for noun, _, kinds in pairs}


def _how(say: Say) -> dict[str, str]:
    return {adverb: pick for adverb, _, pick in (entry.partition("=") for entry in say.how.split("|")) if adverb}


def _half(time_s: float) -> float:
    return math.ceil(2 * time_s - 1e-9) / 2


def _kind(part: Formula) -> str:
    return str(part)[:1] if isinstance(part, Window) else ""


def _atoms(text: str) -> set[str]:
    """The comparisons of a formula, to see what it contains."""
    return {str(predicate) for predicate in parse(text).predicates}


# ---- vocabulary --------------------------------------------------------------------------


def _vocabulary(words: Lexicon) -> Iterator[tuple[tuple[str, ...], Token]]:
    kinds: dict[str, dict[str, str]] = {}
    plurals: set[str] = set()

    def add(text: str, kind: str, value: str = "") -> None:
        known = kinds.setdefault(text, {})
        known[kind] = f"{known[kind]}|{value}" if kind == "noun" and kind in known else value

    def several(texts: str, kind: str, value: Callable[[str], str] | str = "") -> None:
        for text in texts.split("|"):
            add(text, kind, value if isinstance(value, str) else value(text))

    for colour in COLOURS:
        add(colour, "like")
    several(COURTESY, "courtesy")
    several(BE, "be")
    several(ARTICLES, "article")
    several(PRONOUNS, "pronoun")
    several(MORE, "more")
    several(ALL, "count", "0")
    for text, count in COUNTS.items():
        add(text, "count", str(count))
    add("'s", "'s")
    for text in ("ones",):
        add(text, "one")
    for value, texts in LINKS.items():
        for text in texts.split("|" if "|" in texts else " "):
            add(text, "link", value)
    for value, texts in PREPOSITIONS.items():
        several(texts, "of" if value == "of" else "prep", value)
    for text, value in ADVERBS.items():
        add(text, "adverb", value)
    for act, verbs in ACTS.items():
        for verb in verbs.split("|"):
            for form in inflections(verb):
                add(form, "verb", act)
    for name, noun in words.nouns.items():
        for word in noun.words.split("|"):
            for form in (word, *plural(word)):
                add(form, "noun", name)
                if form != word:
                    plurals.add(form)
        for like in (*noun.like.split(), *noun.pick):
            add(like, "like")
    for text, known in kinds.items():
        if "noun" in known:  # a thing of the scene goes before words of every scene
            known.pop("pronoun", None)
            known.pop("courtesy", None)
        yield tuple(text.split()), Token(text=text, kinds=known, plural=text in plurals or text.endswith(("others",)))


def inflections(verb: str) -> Iterator[str]:
    """Forms of a verb, particles kept: ``let go`` → ``lets go``, ``letting go``, ..."""
    head, _, rest = verb.partition(" ")
    tail = f" {rest}" if rest else ""
    stem = head[:-1] if head.endswith("e") and not head.endswith("ee") else head
    doubled = head + head[-1] if head in DOUBLED else stem
    ending = "es" if head.endswith(("s", "sh", "ch", "x", "o")) else "s"
    third = head[:-1] + "ies" if head.endswith("y") and head[-2] not in "aeiou" else head + ending
    past = head[:-1] + "ied" if head.endswith("y") and head[-2] not in "aeiou" else doubled + "ed"
    doing = "lying" if head == "lie" else doubled + "ing"
    for form in dict.fromkeys((head, third, doing, PAST.get(head, past))):
        yield form + tail


def plural(word: str) -> Iterator[str]:
    """The plural of a noun that has one."""
    if word.endswith("s") and not word.endswith("ss"):
        return
    if word.endswith(("ss", "sh", "ch", "x", "o")):
        yield word + "es"
    elif word.endswith("f"):
        yield word[:-1] + "ves"
    else:
        yield word + "s"
