-- Asks the sidecar whether a request may pass; on its way the request gets the headers that the answer has.

local QUESTION = "http://127.0.0.1:8080/-/auth"

-- What the application is told: the names in `headers` of the sidecar's configuration, and what it gets without the
-- sidecar's cookies and tokens. Taken out of every request, whatever the answer says.
local TOLD = { "x-remote-user", "x-remote-email", "x-remote-roles", "cookie", "authorization" }

-- Between HAProxy and the browser, or about a body that is not sent along.
local NOT_PASSED_ON = {
  ["host"] = true, ["connection"] = true, ["keep-alive"] = true, ["proxy-connection"] = true, ["upgrade"] = true,
  ["content-length"] = true, ["transfer-encoding"] = true, ["te"] = true, ["trailer"] = true, ["expect"] = true,
}

local function question(txn)
  local headers = {}
  for name, values in pairs(txn.http:req_get_headers()) do
    if not NOT_PASSED_ON[name] then
      headers[name] = {}
      for index = 0, #values do
        table.insert(headers[name], values[index])
      end
    end
  end
  headers["x-forwarded-method"] = { txn.f:method() }
  headers["x-forwarded-uri"] = { txn.f:pathq() }
  return headers
end

local function refuse(txn, status, headers, body)
  local reply = txn:reply()
  reply:set_status(status)
  for name, values in pairs(headers) do
    if not NOT_PASSED_ON[name] then
      for index = 0, #values do
        reply:add_header(name, values[index])
      end
    end
  end
  reply:set_body(body)
  txn:done(reply)
end

core.register_action("sidecar", { "http-req" }, function(txn)
  local answer = core.httpclient():get { url = QUESTION, headers = question(txn), timeout = 10000 }
  if answer == nil or answer.status == nil or answer.status < 200 then
    refuse(txn, 503, {}, "The sign-in service does not answer. Please try again in a moment.\n")
  elseif answer.status ~= 200 then
    refuse(txn, answer.status, answer.headers, answer.body or "")
  else
    for _, name in ipairs(TOLD) do
      txn.http:req_del_header(name)
      local values = answer.headers[name]
      if values ~= nil then
        for index = 0, #values do
          txn.http:req_add_header(name, values[index])
        end
      end
    end
  end
end, 0)
