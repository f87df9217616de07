# Each target does its own set-up: a virtual environment in .venv, made once.
PY ?= python3
RUN = PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: install demo test bench trust verify docs licences readme lab browser clean

install: .venv/.ok     ## only the set-up in .venv

demo: .venv/.ok        ## the whole study on the phantom world
	$(RUN) meld run --profile demo

test: .venv/.ok        ## notebooks clean, export in sync, library tests, smoke study
	$(RUN) python .ci/check.py

bench: .venv/.ok       ## every step beside its alternative at full size, about 20 minutes on a quiet machine; ends with the table
	$(RUN) meld run --profile bench
	$(RUN) python -c "import pandas as pd; from meld_nb.bench import table_text; print(table_text(pd.read_csv('data/runs/bench/95/benchmarks.csv')))"

trust: .venv/.ok      ## broken inputs, hostile files, kills, full disks, mutants, load, coverage of intervals, at full size; about an hour and a half; ends with a table
	$(RUN) python tests/trust/all.py

SEED ?= 0
verify: .venv/.ok      ## run a world of the study again and compare its tables with the released ones: make verify SEED=0
	$(RUN) meld run --profile study --seed $(SEED) --run data/runs/verify_seed_$(SEED)
	$(RUN) meld verify data/runs/verify_seed_$(SEED) figures/study/seed_$(SEED)

RUN_FOLDER ?= data/runs/demo
docs: .venv/.ok        ## the documentation as a static site in _docs/html; chapters as a run executed them: make docs RUN_FOLDER=data/runs/smoke
	test "$(RUN_FOLDER)" != data/runs/demo -o -f data/runs/demo/run.json || $(RUN) meld run --profile demo
	$(RUN) python docs/build.py --run $(RUN_FOLDER)

licences: .venv/.ok    ## docs/licences.md from what is installed, with all extras
	.venv/bin/pip install --disable-pip-version-check -q -e ".[peer,browser,bench,sr,cluster,docs,dev]"
	$(RUN) python docs/licences.py

readme: .venv/.ok      ## README.md from nbs/index.ipynb
	$(RUN) python .ci/check.py --write-readme

lab: .venv/.ok         ## JupyterLab on the notebooks; those of nbs/explore look into a run
	$(RUN) jupyter lab nbs

browser: .venv/.ok     ## the viewer and the review sheet in a real browser; needs Debian's chromium and chromium-driver
	.venv/bin/pip install --disable-pip-version-check -q -e ".[browser]"
	$(RUN) python tests/browser/lab.py

clean:                 ## what demo and test made; never data/raw
	rm -rf data/runs/smoke data/runs/demo data/cache .hypothesis _docs

.venv/.ok: settings.ini setup.py
	$(PY) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check -q -e ".[dev,docs]"
	touch $@
