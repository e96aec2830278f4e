# The commands of this repository. `make` alone lists them.

.DEFAULT_GOAL := help
CARGO ?= cargo

# What is written in C is built only to be tested: half of the time goes into making it fast.
test test-quick lint dashboards screenshots crash: export CFLAGS += -O1 -g0

# To build OpenSSL takes seven minutes of a processor. What is released has its own; tests take the machine's, where its headers are.
ifneq ($(shell pkg-config --atleast-version=3 libssl 2> /dev/null && echo found),)
test test-quick lint dashboards screenshots crash: export OPENSSL_NO_VENDOR = 1
endif

.PHONY: help demo test ready test-quick lint dashboards screenshots crash chaos bench fmt

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: ## Run with a simulated OpenVidu cluster; prints the address of the page
	$(CARGO) build --release --locked
	./target/release/callscope demo

# Most of their time tests wait, for time to pass or a group to come together: more run at once than there are processors.
test: ready lint ## Everything: format, lints, docs, all tests
	tests/servers/server.sh fetch elasticsearch
	tests/servers/server.sh fetch opensearch
	tests/servers/kafka/kafka.sh fetch
	$(CARGO) test --locked -- --test-threads 4
	$(CARGO) test --locked --test browser -- --test-threads 2
	$(CARGO) test --locked --test real_servers -- --test-threads 2
	$(CARGO) test --locked --test kafka -- --test-threads 6

ready: # What takes no long time to be asked for is asked for first
	tests/servers/server.sh ready
	tests/servers/chromium.sh ready

test-quick: lint ## The same without real servers and browser: no JDK, Maven, jq and Chromium needed
	$(CARGO) test --locked -- --test-threads 4

lint: ## Format, clippy and rustdoc, warnings denied
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --test real_servers --test kafka --test browser -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

dashboards: ## Write kibana/ anew from the panels in src/panels
	$(CARGO) run --locked --quiet --example dashboards

screenshots: ## Pictures of the page, light and dark, wide and narrow, in target/screenshots; those of README.md in docs/
	tests/servers/chromium.sh ready
	CALLSCOPE_SCREENSHOTS=$(CURDIR)/target/screenshots $(CARGO) test --locked --test browser pictures
	cp target/screenshots/readme-sessions.png docs/sessions.png
	cp target/screenshots/readme-session-view.png docs/session.png

crash: ## kill -9 under load, over and over, until it fails or is stopped
	while $(CARGO) test --locked --test crash; do :; done

chaos: ## A group on Kafka, killed, stopped and started: SEEDS=10 EVENTS=200000 SEED=1
	for seed in $$(seq $(or $(SEED),1) $$(($(or $(SEED),1) + $(or $(SEEDS),10) - 1))); do \
	  echo "seed $$seed" && SEEDS=1 EVENTS=$(or $(EVENTS),200000) SEED=$$seed \
	    $(CARGO) test --release --locked --test kafka whatever_happens -- --nocapture || exit 1; \
	done

bench: ## Measure; prints one table
	$(CARGO) bench --locked --bench table

fmt: ## Format the code
	$(CARGO) fmt
