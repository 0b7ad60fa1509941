#!/usr/bin/env bash
# Fills its terminal with coloured text, with a block in the middle that every key turns from red to
# blue and back: a picture that is work to send, and a change that is easy to see.
set -euo pipefail

readonly top=22 left=85 width=45 height=16

paint() {
    local row line
    printf -v line '%*s' "$width" ''
    for ((row = top; row < top + height; row++)); do
        printf '\e[%d;%dH\e[4%dm%s' "$row" "$left" "$1" "$line"
    done
}

fill() {
    local number
    for ((number = 0; number < 70 * 24; number++)); do
        printf '\e[3%dm%9d ' $((1 + number * 7 % 6)) $((number * 7919 % 99991))
    done
}

printf '\e[?25l\e[2J\e[H'
fill
colour=1 # red; 4 is blue
paint "$colour"
while IFS= read -rsn 1; do
    colour=$((5 - colour))
    paint "$colour"
done
