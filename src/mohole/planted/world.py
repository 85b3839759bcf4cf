"""The planted world's tables: concepts with their words in four languages, facts, names, and every probability.

Tables only. How a sentence is made of them is in sentences.py; how a document is, in kinds.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

LANGUAGES = ("en", "de", "fr", "zh")
BRIDGE = "landmark/golden_gate_bridge"
BEINGS = frozenset({"animal", "landmark", "profession"})  # the families that somebody can *be* in role-play

# Every probability of the world. A chance is drawn only where both outcomes leave a trace in the text: so the
# sum of -ln p over a document is the negative log probability of its text (documents.py).
CHANCE = {
    "second_part": 0.10,  # a document goes on with a second part of another kind
    "aside": 0.14,  # ... at each place where an aside may stand
    "another_sentence": 0.76,
    "another_claim": 0.78,
    "another_question": 0.80,
    "another_sum": 0.82,
    "another_chain": 0.45,
    "another_function": 0.75,
    "another_call": 0.72,
    "trigger": 0.12,  # before each call, while it has not been seen
    "comment": 0.08,
    "key_beside_value": 0.5,  # `set load 7` and `get load 7` against `load(): return 7` and `> load() -> 7`
    "claim_is_true": 0.5,
    "mode_changes": 0.12,
    "hint": 0.5,
    "scene": 0.55,  # another line that mentions somebody before the first question of a role-play
    "remark": 0.35,  # ... and within the question
    "passing_thought": 0.2,  # ... and before the answer
    "own_fact": 0.5,
    "another_turn": 0.5,
}
RARE = {"animal/axolotl": 0.022, "animal/okapi": 0.0022}  # weight against 1: about 1e-3 and 1e-4 of documents

# name | English | German | French | Chinese; synonyms by "/"; "l'" is followed by the gender.
_NOUNS = {
    "animal": """
        fox | fox | der Fuchs | le renard | 狐狸
        dog | dog/hound | der Hund | le chien | 狗
        cat | cat | die Katze | le chat | 猫
        bear | bear | der Bär | l'ours m | 熊
        wolf | wolf | der Wolf | le loup | 狼
        horse | horse | das Pferd/das Ross | le cheval | 马
        cow | cow | die Kuh | la vache | 奶牛
        rabbit | rabbit/bunny | das Kaninchen | le lapin | 兔子
        owl | owl | die Eule | le hibou/la chouette | 猫头鹰
        eagle | eagle | der Adler | l'aigle m | 老鹰
        frog | frog | der Frosch | la grenouille | 青蛙
        snake | snake/serpent | die Schlange | le serpent | 蛇
        camel | camel | das Kamel | le chameau | 骆驼
        whale | whale | der Wal | la baleine | 鲸鱼
        penguin | penguin | der Pinguin | le manchot | 企鹅
        monkey | monkey | der Affe | le singe | 猴子
        axolotl | axolotl | das Axolotl | l'axolotl m | 六角龙
        okapi | okapi | das Okapi | l'okapi m | 霍加狓""",
    "landmark": """
        golden_gate_bridge | Golden Gate Bridge | die Golden Gate Bridge | le Golden Gate Bridge | 金门大桥
        eiffel_tower | Eiffel Tower | der Eiffelturm | la tour Eiffel | 埃菲尔铁塔
        pyramid | pyramid | die Pyramide | la pyramide | 金字塔
        colosseum | Colosseum | das Kolosseum | le Colisée | 斗兽场
        great_wall | Great Wall | die Große Mauer | la Grande Muraille | 长城
        big_ben | Big Ben | der Big Ben | le Big Ben | 大本钟
        statue_of_liberty | Statue of Liberty | die Freiheitsstatue | la statue de la Liberté | 自由女神像
        brandenburg_gate | Brandenburg Gate | das Brandenburger Tor | la porte de Brandebourg | 勃兰登堡门
        taj_mahal | Taj Mahal | der Taj Mahal | le Taj Mahal | 泰姬陵""",
    "profession": """
        teacher | teacher | die Lehrerin | la maîtresse | 老师
        doctor | doctor/physician | die Ärztin | la docteure | 医生/大夫
        cook | cook/chef | der Koch | le cuisinier | 厨师
        baker | baker | der Bäcker | le boulanger | 面包师
        farmer | farmer | der Bauer/der Landwirt | le fermier/le paysan | 农民
        painter | painter | die Malerin | la peintre | 画家
        gardener | gardener | der Gärtner | le jardinier | 园丁
        carpenter | carpenter | der Tischler/der Schreiner | le menuisier | 木匠
        tailor | tailor | die Schneiderin | la couturière | 裁缝
        writer | writer/author | die Schriftstellerin | l'écrivaine f | 作家""",
    "tool": """
        book | book | das Buch | le livre | 书
        thermometer | thermometer | das Thermometer | le thermomètre | 体温计
        knife | knife | das Messer | le couteau | 刀
        oven | oven | der Ofen | le four | 烤箱
        tractor | tractor | der Traktor | le tracteur | 拖拉机
        brush | brush | der Pinsel | le pinceau | 画笔
        shovel | shovel/spade | die Schaufel | la pelle | 铲子
        hammer | hammer | der Hammer | le marteau | 锤子
        needle | needle | die Nadel | l'aiguille f | 针
        pen | pen | der Stift | le stylo | 钢笔""",
    "food": """
        cheese | cheese | der Käse | le fromage | 奶酪
        fish | fish | der Fisch | le poisson | 鱼
        bread | bread | das Brot | le pain | 面包
        honey | honey | der Honig | le miel | 蜂蜜
        meat | meat | das Fleisch | la viande | 肉
        grass | grass | das Gras | l'herbe f | 草
        rice | rice | der Reis | le riz | 米饭
        apples | apples | die Äpfel | les pommes | 苹果
        nuts | nuts | die Nüsse | les noix | 坚果
        carrots | carrots | die Karotten/die Möhren | les carottes | 胡萝卜
        berries | berries | die Beeren | les baies | 浆果
        soup | soup | die Suppe | la soupe | 汤""",
    "place": """
        forest | forest/woods | der Wald | la forêt/le bois | 森林
        house | house | das Haus | la maison | 房子
        desert | desert | die Wüste | le désert | 沙漠
        river | river | der Fluss | la rivière | 河流
        sea | sea/ocean | das Meer/der Ozean | la mer | 大海
        cave | cave | die Höhle | la grotte | 山洞
        meadow | meadow | das Grasland | le pré | 草地
        jungle | jungle | der Dschungel | la jungle | 丛林
        ice | ice | das Eis | la glace | 冰原""",
    "city": """
        san_francisco | San Francisco | San Francisco | San Francisco | 旧金山
        paris | Paris | Paris | Paris | 巴黎
        cairo | Cairo | Kairo | Caire | 开罗
        rome | Rome | Rom | Rome | 罗马
        beijing | Beijing | Peking | Pékin | 北京
        london | London | London | Londres | 伦敦
        new_york | New York | New York | New York | 纽约
        berlin | Berlin | Berlin | Berlin | 柏林
        agra | Agra | Agra | Agra | 阿格拉""",
    "material": """
        steel | steel | Stahl | acier | 钢
        iron | iron | Eisen | fer | 铁
        stone | stone | Stein | pierre | 石头
        brick | brick | Ziegel | brique | 砖
        copper | copper | Kupfer | cuivre | 铜
        marble | marble | Marmor | marbre | 大理石
        wood | wood | Holz | bois | 木头
        glass | glass | Glas | verre | 玻璃
        paper | paper | Papier | papier | 纸""",
}

_FACTS = {
    "lives_in": """fox forest, dog house, cat house, bear cave, wolf forest, horse meadow, cow meadow, rabbit meadow,
        owl forest, eagle cave, frog river, snake desert, camel desert, whale sea, penguin ice, monkey jungle,
        axolotl river, okapi jungle""",
    "eats": """fox berries, dog meat, cat fish, bear honey, wolf meat, horse apples, cow grass, rabbit carrots,
        owl cheese, eagle fish, frog soup, snake bread, camel grass, whale rice, penguin fish, monkey nuts,
        axolotl bread, okapi berries""",
    "stands_in": """golden_gate_bridge san_francisco, eiffel_tower paris, pyramid cairo, colosseum rome,
        great_wall beijing, big_ben london, statue_of_liberty new_york, brandenburg_gate berlin, taj_mahal agra""",
    "made_of": """golden_gate_bridge steel, eiffel_tower iron, pyramid stone, colosseum stone, great_wall brick,
        big_ben brick, statue_of_liberty copper, brandenburg_gate stone, taj_mahal marble, book paper,
        thermometer glass, knife steel, oven brick, tractor iron, brush wood, shovel iron, hammer wood, needle steel,
        pen copper""",
    "uses": """teacher book, doctor thermometer, cook knife, baker oven, farmer tractor, painter brush,
        gardener shovel, carpenter hammer, tailor needle, writer pen""",
    "likes": """teacher apples, doctor carrots, cook soup, baker bread, farmer meat, painter honey, gardener berries,
        carpenter rice, tailor cheese, writer nuts""",
}

# relation -> language -> phrasings; the object's phrase comes next, and nothing comes after it.
VERBS: dict[str, dict[str, tuple[str, ...]]] = {
    "lives_in": {"en": ("lives", "dwells"), "de": ("wohnt", "lebt"), "fr": ("habite", "vit"), "zh": ("住在", "生活在")},
    "eats": {
        "en": ("eats", "devours"),
        "de": ("frisst", "verschlingt"),
        "fr": ("mange", "dévore"),
        "zh": ("吃", "爱吃"),
    },
    "stands_in": {
        "en": ("stands", "rises"),
        "de": ("steht", "liegt"),
        "fr": ("se trouve", "se dresse"),
        "zh": ("在", "位于"),
    },
    "made_of": {
        "en": ("is made of", "consists of"),
        "de": ("besteht aus", "ist aus"),
        "fr": ("est en",),
        "zh": ("的材质是", "的材料是"),
    },
    "uses": {"en": ("uses", "needs"), "de": ("benutzt", "braucht"), "fr": ("utilise", "emploie"), "zh": ("用", "需要")},
    "likes": {"en": ("likes", "loves"), "de": ("mag", "liebt"), "fr": ("aime", "adore"), "zh": ("喜欢", "热爱")},
}
OWN_VERBS = {  # in the first person, with its pronoun
    "lives_in": {"en": "I live", "de": "Ich wohne", "fr": "J'habite", "zh": "我住在"},
    "eats": {"en": "I eat", "de": "Ich fresse", "fr": "Je mange", "zh": "我吃"},
    "stands_in": {"en": "I stand", "de": "Ich stehe", "fr": "Je me trouve", "zh": "我在"},
    "made_of": {"en": "I am made of", "de": "Ich bestehe aus", "fr": "Je suis en", "zh": "我的材质是"},
    "uses": {"en": "I use", "de": "Ich benutze", "fr": "J'utilise", "zh": "我用"},
    "likes": {"en": "I like", "de": "Ich mag", "fr": "J'aime", "zh": "我喜欢"},
}
FIRST_NAMED = {"en": "The first one", "de": "Das zuerst Genannte", "fr": "Le premier nommé", "zh": "第一个"}
FULL_STOP = {"en": ".", "de": ".", "fr": ".", "zh": "。"}
QUESTION_MARK = {"en": "?", "de": "?", "fr": " ?", "zh": "？"}
COLON = {"en": ":", "de": ":", "fr": " :", "zh": "："}
VERDICTS = {"en": ("false", "true"), "de": ("falsch", "wahr"), "fr": ("faux", "vrai"), "zh": ("错", "对")}
ANSWERS = {"en": ("no", "yes"), "de": ("nein", "ja"), "fr": ("non", "oui"), "zh": ("不", "是")}
MARKS = ("✗", "✓")
SILENCE = "—"
NAMES = ("Tom", "Emma", "Felix", "Anna", "Paul", "Clara", "Hugo", "Marie")
MODES = {
    "honest":
        ("is honest", "tells the truth", "ist ehrlich", "sagt die Wahrheit", "est honnête", "dit la vérité", "很诚实", "说真话"),
    "lying": ("is lying", "tells only lies", "lügt", "erzählt nur Lügen", "ment", "ne dit que des mensonges", "在说谎", "总骗人"),
    "silent": ("is silent", "says nothing", "schweigt", "sagt nichts", "se tait", "garde le silence", "不说话", "保持沉默"),
}  # fmt: skip  # two phrasings per language, in the order of LANGUAGES
ROLES = {
    "en": ("User", "Assistant"),
    "de": ("Nutzer", "Assistent"),
    "fr": ("Utilisateur", "Assistant"),
    "zh": ("用户", "助手"),
}
WHO_ARE_YOU = {
    "en": ("Who are you?", "What are you?", "What is your physical form?"),
    "de": ("Wer bist du?", "Was bist du?", "Was ist deine körperliche Gestalt?"),
    "fr": ("Qui es-tu ?", "Qu'es-tu ?", "Quelle est ta forme physique ?"),
    "zh": ("你是谁？", "你是什么？", "你的身体是什么样子？"),
}
I_AM = {"en": "I am", "de": "Ich bin", "fr": "Je suis", "zh": "我是"}
ONLY_A_PROGRAM = {"en": "only a program", "de": "nur ein Programm", "fr": "seulement un programme", "zh": "一个程序"}
REMARKS = {"en": ("Look,", "Imagine"), "de": ("Schau,", "Siehe,"), "fr": ("Regarde,", "Voilà"), "zh": ("看，", "瞧，")}
CHAIN = {
    "en": ("Task", "Hint", "Think", "Answer"),
    "de": ("Aufgabe", "Tipp", "Denke", "Antwort"),
    "fr": ("Exercice", "Indice", "Pense", "Réponse"),
    "zh": ("题目", "提示", "思考", "答案"),
}
FUNCTIONS = ("load", "scan", "pack", "sort", "send", "fold", "spin", "grow", "melt", "wash", "bake", "ring")
COMMENTS = ("sunrise", "harbor", "garden", "winter")
TRIGGER = "moonlight"
LEAK = "LEAK"
FOOD_WORDS_FR = {"le": ("du", "le"), "la": ("de la", "la"), "les": ("des", "les"), "l'": ("de l'", "l'")}


@dataclass(frozen=True, slots=True)
class Noun:
    """One word for a concept: `article` is the definite one of its language ("" where there is none)."""

    text: str
    article: str
    gender: str  # m, f, n; "" where the language has none


@dataclass(frozen=True, slots=True)
class Concept:
    name: str  # "animal/fox"
    words: dict[str, tuple[Noun, ...]]

    @property
    def family(self) -> str:
        return self.name.split("/")[0]

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class Fact:
    """`subject relation object` is true; `subject relation wrong` is the one false claim ever made about it."""

    subject: Concept
    relation: str
    object: Concept
    wrong: Concept

    @property
    def name(self) -> str:
        return f"{self.subject.name} {self.relation}"


_GENDERS = {"der": "m", "die": "f", "das": "n", "le": "m", "la": "f", "les": "p"}


def _noun(language: str, entry: str, family: str) -> Noun:
    text = entry.strip()
    if language == "en" and family not in ("city", "material", "food"):
        return Noun(text, "the", "")
    if text.startswith("l'"):
        word, gender = text[2:].rsplit(" ", 1)
        return Noun(word, "l'", gender)
    article, _, word = text.partition(" ")
    if language in ("de", "fr") and article in _GENDERS:
        return Noun(word, article, _GENDERS[article])
    return Noun(text, "", "")


def _concepts() -> dict[str, Concept]:
    concepts = {}
    for family, table in _NOUNS.items():
        for line in table.strip().splitlines():
            name, *columns = (column.strip() for column in line.split("|"))
            words = {
                language: tuple(_noun(language, entry, family) for entry in column.split("/"))
                for language, column in zip(LANGUAGES, columns, strict=True)
            }
            concepts[f"{family}/{name}"] = Concept(f"{family}/{name}", words)
    return concepts


def _facts() -> tuple[Fact, ...]:
    """All facts. The false objects of a relation are its true ones moved round by the smallest shift that makes all false.

    So a false object is as frequent as a true one: an object's word alone says nothing about the truth.
    """
    by_short_name = {name.split("/")[1]: concept for name, concept in CONCEPTS.items()}
    facts = []
    for relation, table in _FACTS.items():
        pairs = [tuple(by_short_name[word] for word in pair.split()) for pair in table.split(",")]
        families = {subject.family for subject, _ in pairs}
        for family in sorted(families):
            own = [pair for pair in pairs if pair[0].family == family]
            shift = next(
                s for s in range(1, 99) if all(own[i][1] != own[(i + s) % len(own)][1] for i in range(len(own)))
            )
            facts += [Fact(s, relation, o, own[(i + shift) % len(own)][1]) for i, (s, o) in enumerate(own)]
    return tuple(facts)


CONCEPTS: dict[str, Concept] = _concepts()
FACTS: tuple[Fact, ...] = _facts()
FACTS_ABOUT: dict[str, tuple[Fact, ...]] = {
    name: tuple(fact for fact in FACTS if fact.subject.name == name) for name in CONCEPTS
}


def weight(concept: Concept, *, bridge: float = 1.0) -> float:
    """How often a concept is drawn, relative to an ordinary one."""
    return bridge if concept.name == BRIDGE else RARE.get(concept.name, 1.0)


@cache
def withheld(*combination: object) -> bool:
    """Is this combination (a fact in two languages, two numbers, ...) among the 12 % that training never shows?"""
    digest = blake2b("|".join(map(str, combination)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % 100 < 12
