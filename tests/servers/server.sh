#!/usr/bin/env bash
# A real search server for tests.
#   server.sh ready                       whether this machine has what tests with real servers need: a JDK 21 or newer, Maven, curl, jq
#   server.sh fetch elasticsearch|opensearch
#   server.sh run   elasticsearch|opensearch FOLDER [PORT]
#       runs it in the foreground with its data in FOLDER. Once it answers, its address is printed and held by FOLDER/url;
#       FOLDER/pid holds the server's process. Ends with SIGTERM. Its queue of writes is short, so that it is soon full. An
#       Elasticsearch asks for passwords where FOLDER/accounts is there, with its files roles.yml, users and users_roles.
# Archives are kept in CALLSCOPE_SERVERS_DIR, /var/tmp/callscope-servers if that is not set. The servers refuse to run as
# root, so root becomes `nobody`, who must be able to reach both folders.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kept=${CALLSCOPE_SERVERS_DIR:-/var/tmp/callscope-servers}

jdk() { # the folder of a whole JDK that is new enough
  local found release
  for found in "${JAVA_HOME:-}" "$(readlink -f "$(command -v java || true)" | sed 's#/bin/java$##')" /usr/lib/jvm/*; do
    [ -x "$found/bin/java" ] && [ -r "$found/release" ] || continue
    release=$(sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$found/release")
    if [ "${release:-0}" -ge 21 ] && "$found/bin/java" --list-modules | grep -q '^jdk.jlink'; then echo "$found"; return; fi
  done
  return 1
}

ready() {
  command -v mvn > /dev/null && command -v curl > /dev/null && command -v jq > /dev/null && jdk > /dev/null && return 0
  echo "tests with real servers need a JDK 21 or newer, Maven, curl and jq; run \`make test-quick\` for all other tests" >&2
  return 1
}

fetch() {
  local group artifact version
  case $1 in
    elasticsearch) group=org.elasticsearch.distribution.integ-test-zip artifact=elasticsearch version=9.5.3 ;;
    opensearch) group=org.opensearch.distribution.integ-test-zip artifact=opensearch version=3.6.0 ;;
    *) echo "no server is called $1" >&2; return 2 ;;
  esac
  home=$kept/$artifact-$version
  [ -e "$home/.done" ] && return 0
  mkdir -p "$kept"
  mvn -q -B -f "$here/pom.xml" -Dgroup=$group -Dartifact=$artifact -Dversion.of=$version -Dinto="$home.part" generate-resources >&2
  mv "$home.part"/$artifact-* "$home"
  rm -rf "$home.part"
  # Modules that only cost time at the start.
  (cd "$home/modules" && rm -rf x-pack-inference x-pack-geoip-enterprise-downloader x-pack-apm-data x-pack-otel-data ingest-otel old-lucene-versions rank-vectors)
  chmod -R a+rX "$home"
  chmod a+x "$home"/bin/* 2> /dev/null || true
  touch "$home/.done"
}

unprivileged() {
  if [ "$(id -u)" = 0 ]; then exec setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; else exec "$@"; fi
}

run() {
  local kind=$1 folder=$2 port=${3:-0} java config
  fetch "$kind"
  java=$(jdk)
  mkdir -p "$folder"/{conf,data,logs,tmp}
  rm -f "$folder"/{url,pid,logs/http.ports}
  cp -r "$home/config/." "$folder/conf/"
  config=$folder/conf/$kind.yml
  cat > "$config" <<YML
cluster.name: test
node.name: test-1
discovery.type: single-node
network.host: 127.0.0.1
http.port: $port
transport.port: 0
node.portsfile: true
path.data: $folder/data
path.logs: $folder/logs
node.store.allow_mmap: false
cluster.routing.allocation.disk.threshold_enabled: false
action.destructive_requires_name: false
thread_pool.write.size: 1
thread_pool.write.queue_size: 2
YML
  if [ "$kind" = elasticsearch ]; then
    local secured=false
    if [ -d "$folder/accounts" ]; then cp "$folder/accounts"/* "$folder/conf/" && secured=true; fi
    printf 'xpack.security.%s\n' "enabled: $secured" 'autoconfiguration.enabled: false' 'http.ssl.enabled: false' 'transport.ssl.enabled: false' >> "$config"
  else
    sed -i -e '/gc\.log/d' -e "s#ErrorFile=logs#ErrorFile=$folder/logs#" -e "s#HeapDumpPath=data#HeapDumpPath=$folder/logs#" "$folder/conf/jvm.options"
  fi
  [ "$(id -u)" = 0 ] && chown -R 65534:65534 "$folder"
  announce "$folder" &
  cd "$home"
  export HOME=$folder JAVA_HOME=$java
  # The second compiler takes more of a processor than it saves in the minutes that a server lives here.
  local options="-Xms512m -Xmx512m -XX:TieredStopAtLevel=1"
  if [ "$kind" = elasticsearch ]; then
    export ES_HOME=$home ES_PATH_CONF=$folder/conf ES_DISTRIBUTION_TYPE=zip JAVA_TYPE=ES_JAVA_HOME JAVA=$java/bin/java ES_JAVA_HOME=$java
    export ES_TMPDIR=$folder/tmp ES_JAVA_OPTS="$options" CLI_JAVA_OPTS="-Xms4m -Xmx64m -XX:+UseSerialGC"
    # shellcheck disable=SC2086
    unprivileged "$JAVA" $CLI_JAVA_OPTS -cp "$home/lib/tools/server-launcher/*" org.elasticsearch.server.launcher.ServerLauncher -p "$folder/pid" > "$folder/logs/console.log" 2>&1
  else
    export OPENSEARCH_PATH_CONF=$folder/conf OPENSEARCH_JAVA_HOME=$java OPENSEARCH_TMPDIR=$folder/tmp OPENSEARCH_JAVA_OPTS="$options"
    unprivileged "$home/bin/opensearch" -p "$folder/pid" > "$folder/logs/console.log" 2>&1
  fi
}

announce() { # writes the address once the server answers
  local url
  for _ in $(seq 1 600); do
    if [ -s "$1/logs/http.ports" ]; then
      url=http://$(grep -m1 -o '127[.]0[.]0[.]1:[0-9]*' "$1/logs/http.ports")
      # Who asks for a password answers.
      if curl -sS -m 40 -o /dev/null -w '%{http_code}' "$url/_cluster/health?wait_for_status=yellow&timeout=30s" 2> /dev/null | grep -qE '200|401'; then
        echo "$url" > "$1/url.part" && mv "$1/url.part" "$1/url"
        echo "$url"
        return
      fi
    fi
    sleep 0.3
  done
}

case ${1:-} in
  ready | fetch | run) "$@" ;;
  *) sed -n '2,9p' "$0"; exit 2 ;;
esac
