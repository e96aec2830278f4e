#!/usr/bin/env bash
# A real Kafka (KRaft) for tests: one node, or three.
#   kafka.sh fetch                    jars, once, and an archive of their classes, with which a broker starts in half the time
#   kafka.sh format FOLDER PORT [N [COPIES]]
#                                     prepares N nodes in FOLDER/1.. and prints their addresses: clients at PORT.., controllers
#                                     at PORT+10.. A single node has three more doors at PORT+20.. and says that they are
#                                     at PORT+30..: there a test can stand in between. COPIES: of every partition, if not N
#   kafka.sh secure FOLDER PORT       gives a single node that was prepared one more door, at PORT: TLS with the certificate in
#                                     FOLDER/cert.pem, and SASL (PLAIN and SCRAM-SHA-512) for the user "callscope", password "secret",
#                                     who may do everything; "guest" with the same password (PLAIN) may do what is allowed
#   kafka.sh allow ADDRESS ARGUMENT…  lets "guest" do what arguments of kafka-acls.sh say
#   kafka.sh run FOLDER I             becomes node I: its process is the broker's own, ended by TERM or KILL, and run again on
#                                     the same folder
# Jars are kept in CALLSCOPE_SERVERS_DIR, /var/tmp/callscope-servers if that is not set.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kept=${CALLSCOPE_SERVERS_DIR:-/var/tmp/callscope-servers}
version=4.3.1
lib=$kept/kafka-$version
# The serial collector and the first compiler alone start sooner and take less.
java=("${JAVA_HOME:+$JAVA_HOME/bin/}java" -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:MaxDirectMemorySize=64m
  -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$lib/*")
classes=$lib/classes.jsa
[ -e "$classes" ] && java+=(-XX:SharedArchiveFile="$classes")

fetch() {
  if ! cmp -s "$here/pom.xml" "$lib/pom.xml"; then
    mkdir -p "$kept"
    rm -rf "$lib"
    mvn -q -B -f "$here/pom.xml" -Dkafka.version=$version dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$lib" >&2
    cp "$here/pom.xml" "$lib/pom.xml"
  fi
  [ -e "$classes" ] || archive
}

# A broker that has come up tells at its end which classes it had. Without them it only starts later.
archive() {
  local folder port=$((20000 + RANDOM % 10000)) broker i
  folder=$(mktemp -d)
  format "$folder" "$port" > /dev/null
  "${java[@]}" -XX:ArchiveClassesAtExit="$classes" kafka.Kafka "$folder/1/server.properties" > "$folder/log" 2>&1 &
  broker=$!
  for ((i = 0; i < 300; i++)); do
    (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null && break
    sleep 0.2
  done
  kill "$broker" && wait "$broker" || true
  rm -rf "$folder"
}

format() {
  local folder=$1 port=$2 nodes=${3:-1} copies=${4:-${3:-1}} in_step=1 session=1000 i
  local controllers='' clients='' doors='' proxies=''
  [ "$nodes" -ge 3 ] && session=3000
  [ "$copies" -ge 3 ] && in_step=2
  for ((i = 1; i <= nodes; i++)); do
    clients+=,127.0.0.1:$((port + i - 1))
    controllers+=,$i@127.0.0.1:$((port + 9 + i))
  done
  if [ "$nodes" = 1 ]; then
    doors=,A://127.0.0.1:$((port + 20)),B://127.0.0.1:$((port + 21)),C://127.0.0.1:$((port + 22))
    proxies=,A://127.0.0.1:$((port + 30)),B://127.0.0.1:$((port + 31)),C://127.0.0.1:$((port + 32))
  fi
  for ((i = 1; i <= nodes; i++)); do
    mkdir -p "$folder/$i"
    sed -e "s|@NODE@|$i|" -e "s|@PORT@|$((port + i - 1))|" -e "s|@CONTROL@|$((port + 9 + i))|" -e "s|@CONTROLLERS@|${controllers#,}|" \
      -e "s|@FOLDER@|$folder/$i|" -e "s|@COPIES@|$copies|" -e "s|@IN_STEP@|$in_step|" -e "s|@SESSION@|$session|" \
      -e "s|@DOORS@|$doors|" -e "s|@PROXIES@|$proxies|" \
      "$here/server.properties" > "$folder/$i/server.properties"
    prepared "$nodes" "$i" "$folder/$i"
  done
  echo "${clients#,}"
}

# What a node begins with is the same for every test: it is made once for each number of nodes.
prepared() {
  local begun=$lib/begun-$1-$2 folder=$3
  if [ ! -e "$begun" ]; then
    "${java[@]}" kafka.tools.StorageTool format -t callscopecluster0000AA -c "$folder/server.properties" \
      --add-scram 'SCRAM-SHA-512=[name=callscope,password=secret]' > "$folder/format.log" 2>&1 || { cat "$folder/format.log" >&2; exit 1; }
    cp -r "$folder/data" "$begun.$$"
    # Another test may have been quicker.
    mv -T "$begun.$$" "$begun" 2> /dev/null || rm -rf "$begun.$$"
  fi
  [ -e "$folder/data" ] || cp -r "$begun" "$folder/data"
}

secure() {
  local folder=$1 port=$2 keys=$1/keys.p12 properties=$1/1/server.properties
  local keytool=("${JAVA_HOME:+$JAVA_HOME/bin/}keytool" -keystore "$keys" -storepass secret -alias broker)
  "${keytool[@]}" -genkeypair -keyalg EC -dname CN=broker -ext san=ip:127.0.0.1 -validity 30 2> "$folder/keys.log"
  "${keytool[@]}" -exportcert -rfc -file "$folder/cert.pem" 2>> "$folder/keys.log"
  sed -i -e "s|^\(listeners=.*\)|\1,SECURE://127.0.0.1:$port|" -e "s|^\(advertised.listeners=.*\)|\1,SECURE://127.0.0.1:$port|" \
    -e 's|^\(listener.security.protocol.map=.*\)|\1,SECURE:SASL_SSL|' "$properties"
  cat >> "$properties" <<END
ssl.keystore.location=$keys
ssl.keystore.password=secret
listener.name.secure.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512
listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_callscope="secret" user_guest="secret";
listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:callscope;User:ANONYMOUS
END
}

allow() {
  "${java[@]}" org.apache.kafka.tools.AclCommand --bootstrap-server "$1" --add --allow-principal User:guest "${@:2}"
}

run() {
  exec "${java[@]}" kafka.Kafka "$1/$2/server.properties"
}

case ${1:-} in
  fetch | format | secure | allow | run) "$@" ;;
  *) sed -n '2,15p' "$0"; exit 2 ;;
esac
