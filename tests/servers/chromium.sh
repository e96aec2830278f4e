#!/usr/bin/env bash
# A browser for tests of the page.
#   chromium.sh ready    sees to it that `chromium` is there: where it is missing, root installs Debian's
set -euo pipefail
command -v chromium > /dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core > /dev/null
  exit 0
fi
echo "tests of the page need Chromium, called \`chromium\`; run \`make test-quick\` for all other tests" >&2
exit 1
