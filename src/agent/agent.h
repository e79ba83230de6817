/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * wrenn-agent: PID 1 of every guest, from the initrd. main.c boots (boot.c), then one loop serves the
 * control stream (link.c, one HTTP/2 session at a time), whose requests (request.c) work on the identity,
 * the processes and the files.
 */

#include "agent/identity.h"
#include "agent/loop.h"
#include "agent/process.h"

typedef struct Agent {
        Loop *loop;
        Identity identity;
        ProcessTable *processes;
        UserCache users; /* of files */
        bool poweroff;   /* asked for; happens once the answer is on its way */
} Agent;
