/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What files.c and file-upload.c share: requests to the agent and their failures. */

#include "rest/rest.h"

/* The error, or a broken connection when the answer is on its way. */
void file_answer_failure(RestRequest *q, FaultCode code, const char *message);
