/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What files.c and file-upload.c share: requests to the agent and their failures. */

#include "rest/rest.h"

/* of a request to the agent: what fits its header block beside the rest */
#define FILE_REQUEST_LEN_MAX (H2_HEADER_BYTES_MAX - KIB)

/*
 * channel_call() to the capsule of q, which must run. path: percent-encoded, with its query. 0, or the fault
 * is set.
 */
int file_call(RestRequest *q, const char *method, const char *path, bool with_body,
              const AgentCallHandlers *handlers, void *userdata, AgentCall **ret, Fault *reterr);

/* The error, or a broken connection when the answer is on its way. */
void file_answer_failure(RestRequest *q, FaultCode code, const char *message);
