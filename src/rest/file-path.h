/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Paths of files in a guest, as clients send them: UTF-8 text, or base64 of any bytes but NUL; in JSON, as a
 * form's field or in a query. What comes out is percent-encoded for the agent's query. All return 0 or set
 * FAULT_INVALID_ARGS (FAULT_NO_MEMORY).
 */

#include <jansson.h>

#include "basic/fault.h"

/* name: of the member, for errors. text: UTF-8. */
int file_path_from_text(const char *name, const char *text, size_t n, char **ret, Fault *reterr);
int file_path_from_base64(const char *name, const char *text, size_t n, char **ret, Fault *reterr);
/* The member name, or name_base64, of a body. */
int file_path_from_json(json_t *body, const char *name, char **ret, Fault *reterr);
/* path=… of a query (NULL: there is none), percent-encoded, '+' is a blank. */
int file_path_from_query(const char *query, char **ret, Fault *reterr);
