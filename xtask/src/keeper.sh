# Runs one RabbitMQ node with an epmd of its own, and ends both when nobody wants them any more.
#
# Whoever uses the node holds a shared lock on DIR/lease. The kernel gives the lock back however
# its holder ends, so a test process that is killed with -9 leaves no node behind.
#
# usage: sh keeper.sh DIR GRACE_S (keep|remove) SERVER
#   GRACE_S  seconds without a user until the node is killed; a file DIR/pinned suspends this
#   remove   remove DIR when that happened
dir=$1 grace_s=$2 leftovers=$3 server=$4
cd "$dir" || exit 1
rm -f expired
# Opened once and shared with the watch below: a lock that the watch takes is held until this
# shell ends, so the next user does not meet a dying node.
exec 9>>lease

epmd -relaxed_command_check -address 127.0.0.1 -port "$ERL_EPMD_PORT" \
    </dev/null >/dev/null 2>&1 9>&- &
epmd=$!
"$server" </dev/null >>console.log 2>&1 9>&- &
node=$!

(
    idle_s=0
    while sleep 1; do
        if [ ! -e pinned ] && flock --exclusive --nonblock 9; then
            [ "$idle_s" -ge "$grace_s" ] && break
            idle_s=$((idle_s + 1))
            flock --unlock 9
        else
            idle_s=0
        fi
    done
    : >expired
    kill -9 "$node"
) &
watch=$!

wait "$node"
kill "$epmd"
if [ -e expired ]; then
    rm -f state.json
    [ "$leftovers" = remove ] && cd / && rm -rf "$dir"
else
    kill "$watch"
fi
wait
