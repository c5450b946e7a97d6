# l3edge: layer 3 to the edge.
#
#   make demo        build, then watch the lab come alive (KEEP=1 leaves it up)
#   make test        set up what the tests need, then run them all
#   make build       static binaries into bin/
#   make check       what a reviewer would say: gofmt, vet, lint
#   make test-runtimes  pods made by containerd and podman (as root)
#   make test-fire   portald under fire, and a minute of services that come and go
#   make test-kube   against a real Kubernetes: five minutes, and at first ten more to build it (as root)
#   make image       an OCI image of the static binaries, for amd64 and arm64, in dist/
#   make deb         Debian packages, in dist/
#   make bench       side by side with the peers (BENCH=cni|routed|portal)
#   make lab-down    remove a lab that KEEP=1 left up

SHELL   := /bin/bash
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS := -s -w -X github.com/l3edge/l3edge/pkg/core/version.Version=$(VERSION)
BENCH   ?= cni
ARCHS   ?= amd64 arm64
# A Debian version begins with a digit.
DEBVER  := $(patsubst v%,%,$(if $(filter v%,$(VERSION)),$(VERSION),0.0.0~$(VERSION)))
STAMP   := $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
PACK    := $(GO) tool -modfile=tools/pack/go.mod

export CGO_ENABLED = 0

.PHONY: build demo lab-down test test-runtimes test-fire test-kube check bench dist image deb clean

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/... ./daemon/... ./plugins/...

demo: build
	@test/need.sh demo
	bin/l3ctl lab demo $(if $(KEEP),--keep)

lab-down:
	@test -x bin/l3ctl || $(MAKE) --no-print-directory build
	bin/l3ctl lab down

test: build
	@test/need.sh test
	cd test/bench && $(GO) mod download   # the reference plugins are built where there is no network
	$(GO) vet ./...
	$(GO) test -count=1 -timeout 9m ./...
	cd test/bench && $(GO) vet . && $(GO) test -count=1 .

test-runtimes: build
	@test/need.sh runtimes
	cd test/runtimes && $(GO) mod download && $(GO) vet ./... && $(GO) test -count=1 -timeout 9m .

test-fire:
	@test/need.sh test
	PORTALD_FIRE_CHURN=1m $(GO) test -count=1 -timeout 9m -run TestFire ./daemon/portald

test-kube: build
	@test/need.sh kube
	cd test/kube && $(GO) vet ./... && $(GO) test -count=1 -timeout 30m -v .

check:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt: $$out"; exit 1; }
	$(GO) vet ./...
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

bench: build
	@test/need.sh bench
	cd test/bench && $(GO) run . -bench '$(BENCH)'

# Binaries for every architecture, and the list of what they are made of (CycloneDX).
dist:
	@rm -rf dist/units && mkdir -p dist/units
	@for a in $(ARCHS); do echo "build for $$a" && rm -rf dist/$$a && \
	  GOARCH=$$a $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/$$a/ ./cmd/... ./daemon/... ./plugins/... || exit 1; done
	@$(PACK) cyclonedx-gomod mod -json -type application -output dist/l3edge.cdx.json . 2>/dev/null
	@for u in conf/systemd/*.service; do sed 's#/usr/local/bin/#/usr/bin/#' $$u > dist/units/$$(basename $$u); done

image: dist
	$(GO) -C tools/pack run . -version '$(VERSION)' -created $(STAMP) -o ../../dist/l3edge-image.tar \
	  -with ../../LICENSE=/LICENSE -with ../../dist/l3edge.cdx.json=/usr/share/doc/l3edge/l3edge.cdx.json $(ARCHS:%=../../dist/%)

deb: dist
	for a in $(ARCHS); do ARCH=$$a VERSION='$(DEBVER)' SOURCE_DATE_EPOCH=$(STAMP) $(PACK) nfpm package -f conf/packages/nfpm.yaml -p deb -t dist/ || exit 1; done

clean:
	rm -rf bin dist
