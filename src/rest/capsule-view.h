/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A capsule as wrennd told it last: the properties of its D-Bus object and the JSON made of them (api.md
 * §2.1). */

#include <jansson.h>
#include <systemd/sd-bus.h>

#include "basic/macro.h"

typedef struct CapsuleView {
        char *path;
        char *id, *template, *team, *state, *host_address, *agent_version, *isolation, *backend;
        char *status_message, *status_code, *termination_reason;
        char **labels; /* "name=value" */
        uint32_t vcpus;
        uint64_t memory_bytes, disk_bytes, timeout_usec;
        uint64_t created_usec, started_usec, last_active_usec,
                        last_updated_usec; /* CLOCK_REALTIME, 0: not yet */
        char *json;                        /* cached; NULL: to be made */
        bool seen;                         /* of the re-synchronisation under way */
} CapsuleView;

int capsule_view_new(const char *path, CapsuleView **ret);
CapsuleView* capsule_view_free(CapsuleView *v);
DEFINE_CLEANUP(CapsuleView, capsule_view_free)

/* Reads a{sv} from m; unknown members are skipped. Forgets the cached JSON. */
int capsule_view_read(CapsuleView *v, sd_bus_message *m);
int capsule_view_set_state(CapsuleView *v, const char *state);
bool capsule_view_is_running(const CapsuleView *v);

/* The status REST may show for a state of ours (api.md §0.3(5)): transients show what was before. */
const char* capsule_status_from_state(const char *state);
/* Is it over, stopped or failed? Such ones are not listed. */
bool capsule_view_is_ended(const CapsuleView *v);

/* The Capsule object as compact JSON; borrowed until the next change. NULL on out of memory. */
const char* capsule_view_json(CapsuleView *v);
