# Each target does its own set-up: a virtual environment in .venv, made once.
PY ?= python3
RUN = PATH="$(CURDIR)/.venv/bin:$$PATH"

.PHONY: demo test readme lab clean

demo: .venv/.ok        ## the whole study on the phantom world
	$(RUN) meld run --profile demo

test: .venv/.ok        ## notebooks clean, export in sync, library tests, smoke study
	$(RUN) python .ci/check.py

readme: .venv/.ok      ## README.md from nbs/index.ipynb
	$(RUN) python .ci/check.py --write-readme

lab: .venv/.ok         ## JupyterLab on the notebooks
	$(RUN) jupyter lab nbs

clean:                 ## what demo and test made; never data/raw
	rm -rf data/runs/smoke data/runs/demo data/cache .hypothesis

.venv/.ok: settings.ini setup.py
	$(PY) -m venv .venv
	.venv/bin/pip install --disable-pip-version-check -q -e ".[dev]"
	touch $@
