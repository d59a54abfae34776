"""Words that stand in every English or Portuguese text and tell nothing, folded as `words.fold_text` does."""

from __future__ import annotations

_ENGLISH = """
a about above after again against all also am an and any are as at be because been before being below between
both but by can could did do does doing done each either else ever few for from further get gets got had has
have having he her here hers him his how i if in into is it its itself just let many may me might more most
much must my near neither no nor not now of off on once only or other our out over own per please put quite
rather same see shall she should since so some such than that the their them then there these they this those
through thus to too under until up upon us very via was we were what whatever when where whether which while
who whom whose why will with within without would yet you your yours
"""
_PORTUGUESE = """
a agora ai ainda algum alguma algumas alguns ali ante antes ao aos apenas apos aquela aquelas aquele aqueles
aquilo as assim ate atraves bem cada com como contra da dai dali daquela daquele das de dela delas dele deles
depois desde desta deste destas destes dessa desse dessas desses disso disto do dos e ela elas ele eles em
enquanto entao entre era eram essa essas esse esses esta estao estar estas estava estavam este estes estou eu
fazer foi for foram ha havia isso isto ja la lhe lhes lo mais mas me mesma mesmas mesmo mesmos meu meus minha
minhas muita muitas muito muitos na nao nas nem nessa nesse nesta neste no nos nossa nossas nosso nossos num
numa o onde os ou outra outras outro outros para pela pelas pelo pelos per perante pode podem pois por porem
porque pouca pouco poucos pra qual quais quando quanto que quem sao se seja sejam sem sempre sendo ser sera
seu seus si sido sob sobre somos sou sua suas tal talvez tambem tanto te tem temos tenho ter teu teus tinha
toda todas todo todos tu tua tudo um uma umas uns vai vao voce voces
"""

STOP_WORDS = frozenset(_ENGLISH.split()) | frozenset(_PORTUGUESE.split())
