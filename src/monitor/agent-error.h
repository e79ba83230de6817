/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the agent says when it refuses a request: a status and {"error":{"code","message"}}, as hostile as
 * the rest. */

#include "basic/fault.h"
#include "shared/h2-ring.h"

typedef struct AgentError {
        H2Ring body;
} AgentError;

void agent_error_done(AgentError *e);
/* -E2BIG beyond AGENT_JSON_MAX, -ENOMEM */
int agent_error_take(AgentError *e, const void *data, size_t n);
/* The agent's code and words as far as they are fit for display, else 'otherwise'; the errno of the fault.
 */
int agent_error_fault(AgentError *e, const char *otherwise, Fault *ret);
