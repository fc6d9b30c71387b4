# People and CI share these targets. `make demo` and `make test` need Python 3.11+, pip and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-cluster test-cluster-aws cluster-tools chromium faults check bench bench-truth reruns lock clean

demo: .venv/demo  ## install what running needs, then measure two simulated endpoints
	$(BIN)/raybench run configs/quickstart.yaml

test: check chromium  ## everything: lint, types, every test
	$(BIN)/pytest -n 3 --dist loadfile -m "ray or browser"

test-cluster: .venv/dev cluster-tools  ## ray up over sshd in network namespaces of its own; needs root
	$(BIN)/pytest -rsx tests/cluster/live.py

test-cluster-aws: .venv/dev cluster-tools  ## ray up cluster.yaml against moto, whose instances are such namespaces
	$(BIN)/pytest -rsx tests/cluster/aws.py

faults: .venv/dev cluster-tools  ## every fault of the matrix, what is promised then, and whether it holds; needs root for one
	$(BIN)/python tests/faults.py

check: .venv/dev  ## the quick half of `make test`: format, lint, types, and the tests that start nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadfile -m "not ray and not browser"

bench: .venv/dev  ## performance figures, each as a ratio against a baseline of the same run
	$(BIN)/python -m benchmarks

bench-truth: .venv/dev  ## the figures behind the numbers, with their seeds: intervals, searches, this machine's stamps
	$(BIN)/python -m benchmarks.truth

reruns: .venv/dev  ## how often the tests on sockets and real time are red by chance, N runs of them
	$(BIN)/python tests/reruns.py $(or $(N),50)

chromium:  ## the browser for the report's tests; Debian's package, installed when missing and possible
	@command -v chromium >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; } \
	  || echo "NO BROWSER: chromium is missing and could not be installed; the browser tests will be skipped"

cluster-tools:  ## what the cluster test needs of Debian, installed when missing and possible
	@[ "$$(id -u)" != 0 ] || { [ -x /usr/sbin/sshd ] && command -v rsync >/dev/null && command -v ip >/dev/null; } \
	  || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq openssh-server rsync iproute2 >/dev/null; } \
	  || echo "NO CLUSTER TOOLS: sshd, rsync or ip could not be installed" >&2

.venv/demo: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements.lock
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.venv/dev: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-dev.lock
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@ .venv/demo

lock:  ## choose versions anew; needs uv
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url pyproject.toml requirements-build.in -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url pyproject.toml requirements-build.in --extra dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
