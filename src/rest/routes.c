/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Every route there is (api.md §2.0). */

#include "basic/limits.h"
#include "rest/rest.h"

const RestRoute rest_routes[] = {
        { HTTP_METHOD_GET, "/health", rest_health_get, HTTP_BODY_MAX, .open = true },
        { HTTP_METHOD_GET, "/v1/health", rest_health_get, HTTP_BODY_MAX, .open = true },
        { HTTP_METHOD_POST, "/v1/capsules", rest_capsules_create, HTTP_BODY_MAX },
        { HTTP_METHOD_GET, "/v1/capsules", rest_capsules_list, HTTP_BODY_MAX },
        { HTTP_METHOD_GET, "/v1/capsules/{}", rest_capsule_get, HTTP_BODY_MAX, .capsule = true },
        { HTTP_METHOD_DELETE, "/v1/capsules/{}", rest_capsule_delete, HTTP_BODY_MAX, .capsule = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/ping", rest_capsule_ping, HTTP_BODY_MAX, .capsule = true },
        { HTTP_METHOD_POST, "/v1/capsules/{}/exec", rest_capsule_exec, HTTP_EXEC_BODY_MAX, .capsule = true },
        { HTTP_METHOD_GET, "/v1/capsules/{}/processes", rest_processes_list, HTTP_BODY_MAX,
          .capsule = true },
        { HTTP_METHOD_DELETE, "/v1/capsules/{}/processes/{}", rest_process_kill, HTTP_BODY_MAX,
          .capsule = true },
        {},
};
