#!/usr/bin/env bash
# npm: packages are packed, installed with their links and cache on the mount, and run, without a network.
# needs: npm=npm node=nodejs
# short: no
# shellcheck source=scripts/programs/stage.bash
. "$(dirname "$0")/stage.bash"

export npm_config_cache=$LIVE/cache npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false HOME=$SCRATCH
packages=$(pick 5 40)
dependencies=''
for ((i = 0; i < packages; i++)); do
    mkdir -p "$LIVE/packages/p$i/lib"
    printf '{"name":"p%d","version":"1.0.%d","bin":{"run-p%d":"run.js"},"main":"lib/index.js"}' "$i" "$i" "$i" >"$LIVE/packages/p$i/package.json"
    printf 'module.exports = %d;\n' "$i" >"$LIVE/packages/p$i/lib/index.js"
    printf '#!/usr/bin/env node\nconsole.log(require("./lib"));\n' >"$LIVE/packages/p$i/run.js"
    (cd "$LIVE" && npm pack --silent "./packages/p$i" >/dev/null) || fail "npm pack"
    dependencies+="${dependencies:+,}\"p$i\":\"file:../p$i-1.0.$i.tgz\""
done
mkdir "$LIVE/app"
printf '{"name":"app","version":"1.0.0","dependencies":{%s}}' "$dependencies" >"$LIVE/app/package.json"
cd "$LIVE/app" || exit
npm install --silent >"$SCRATCH/log" 2>&1 &
sleep 1
freeze installing
wait $! || fail "npm install: $(tail -n 5 "$SCRATCH/log")"
freeze installed
adds_up='let s = 0; for (let i = 0; i < +process.argv[1]; i++) s += require("p" + i); console.log(s)'
want=$((packages * (packages - 1) / 2))
same "the installed packages" "$want" "$(node -e "$adds_up" "$packages")"
same "a linked command" 3 "$(node_modules/.bin/run-p3)"
same "the frozen packages" "$want" "$(cd "$FROZEN/app" && node -e "$adds_up" "$packages")"
same "a frozen linked command" 3 "$("$FROZEN/app/node_modules/.bin/run-p3")"
npm ci --silent >"$SCRATCH/log" 2>&1 || fail "npm ci: $(tail -n 5 "$SCRATCH/log")"
same "the packages after npm ci" "$want" "$(node -e "$adds_up" "$packages")"
npm cache verify >/dev/null 2>&1 || fail "npm cache verify"
checked "$packages packages packed, installed and run, live and frozen; npm ci, npm cache verify"
