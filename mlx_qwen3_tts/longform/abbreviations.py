"""Words around a full stop that does not end a sentence, in ten languages.

One list serves all languages: a book's language is often unknown or mixed, and what is an abbreviation in one of them
rarely ends a sentence in another. Words that do, such as "no" and "art", are only taken for abbreviations in front of
a number.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A name follows: never the end of a sentence. As written.
TITLES = _words(
    """
    Mr Mrs Ms Messrs Mx Dr Drs Prof St Ste Sts Rev Hon Gen Col Capt Lt Cmdr Sgt Cpl Maj Adm Gov Sen Rep Pres Supt Mt Ft
    Hr Hrn Fr Frl Hl Bhf
    MM Mme Mmes Mlle Mlles Mgr
    Sr Sra Sras Srta Sres Dra Profa Dña Ing Arq Gral Sto Sta Exmo Exma Ilmo Ilma Ud Uds Vd Vds Av Avda
    Sig Sigg Dott Avv Geom Rag Egr Gent Spett Arch Mons Card
    sig sigg dott prof avv ing geom rag arch dr mons card
    ул просп пер пл наб бул проф акад доц св тов гр гос обл
    Ул Просп Пл Проф Акад Доц Св Тов
    """
)

# A number follows; otherwise these are words, or letters at the end of a sentence. In lower case.
NUMBERED = _words(
    """
    no nos nr nrn vol vols fig figs ch chap chs pp p pg pag pág págs pagg sec sect art arts arr bd bde bk cap caps cit
    ed eds kap par para abs zif z s ss f ff num núm n nn vv tab tabl abb anm fol max min op opp tel ext
    jan feb mar apr jun jul aug sep oct nov dec mon tue tues wed thu fri sat sun mai fev abr ago set out dez okt
    т тт гл рис табл стр кв корп п пп разд ст илл оф янв фев мар апр авг сен окт ноя дек
    """
)

# A sentence may end here: it does if the next word is one that often begins sentences. In lower case. Single small
# letters, letters with full stops (U.S.), and what follows a single letter (p. ex.) count as well.
ABBREVIATIONS = _words(
    """
    etc eg ie al cf viz vs approx dept inc ltd co corp bros assn univ jr esq ave blvd rd hwy sept thur thurs
    med phil jur nat ca bzw usw ggf evtl inkl exkl zzgl bspw chr jh jhd jhdt str geb gest verh sog ebd hrsg vgl
    env av janv févr juil déc boul tél éd cie
    ee uu aprox dcha izda admón cía tfno pza depto pça ltda cia
    ecc sig.ra sig.na sig.re dott.ssa prof.ssa segg ediz v.le p.za c.so
    гг вв им нач кон сер февр сент нояб см ср напр др пр авт ред изд букв перен
    """
)

# Words that begin sentences and hardly ever follow an abbreviation inside one. In lower case.
STARTERS = _words(
    """
    the a an he she it they we you i this that these those there then his her its their our my your but and so when
    what who why how where if in on at for after before not no yes as now
    der die das er sie es wir ihr ich du dann da aber und doch nun ein eine dies diese dieser dieses so als wenn was wer
    warum wie wo nach vor nicht nein ja sein seine auch man
    le la les il elle ils elles on nous vous je tu ce cette ces cela ça mais et puis alors un une quand qui que quoi
    pourquoi comment où si dans après avant non oui son sa ses leur l c d j
    он она оно они мы вы я ты это этот эта эти тот та те но и а потом затем тогда когда что кто почему как где если в на
    после не нет да его её их мой твой наш ваш там тут
    el ella ellos ellas los las un una uno yo tú nosotros ustedes esto este esta eso pero y luego entonces cuando quien
    qué quién por cómo dónde si en después no sí su sus lo se
    o os as ele ela eles elas um uma eu nós vós isto isso mas e depois quando quem porque como onde se em não sim seu
    sua lui lei loro noi voi io gli i lo uno ma poi allora quando chi che perché come dove nel dopo no sì suo sua questo
    questa quello quella ci
    """
)

# What a German ordinal ("am 3. Oktober", "im 18. Jahrhundert") stands between. In lower case.
ORDINAL_NOUNS = _words(
    """
    januar jänner februar märz april mai juni juli august september oktober november dezember
    jahrhundert jahrhunderts jh jahrtausend jahrestag geburtstag kapitel klasse stock stockwerk etage mal teil band akt
    szene auflage weltkrieg weltkriegs lebensjahr armee division korps bataillon regiment kompanie platz runde minute
    stunde tag woche monat jahr internationale reihe bezirk
    """
)
ORDINAL_WORDS = _words("vom zum zur im dem der des den das beim jeder jeden jedes")
