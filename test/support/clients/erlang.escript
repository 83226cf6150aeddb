#!/usr/bin/env escript
%% httpc over the ssl application: a profile, and so a connection, for each URL. See README.md for the arguments.
main([Authority, Requests, Big, Names | Urls]) ->
    {ok, _} = application:ensure_all_started(ssl),
    {ok, _} = application:ensure_all_started(inets),
    Body = binary:part(binary:copy(<<"0123456789abcdef">>, list_to_integer(Big) div 16 + 1), 0, list_to_integer(Big)),
    lists:foreach(
      fun({Number, Url}) ->
              Profile = list_to_atom("url" ++ integer_to_list(Number)),
              {ok, _} = inets:start(httpc, [{profile, Profile}]),
              ok = httpc:set_options([{max_sessions, 1}, {keep_alive_timeout, 600000}], Profile),
              upload(Profile, Authority, Url, Body),
              [ask(Profile, Authority, get, {Url ++ "/" ++ Name, [{"authorization", "Bearer " ++ os:getenv(Name)}]})
               || Name <- string:lexemes(Names, " "), _ <- lists:seq(1, list_to_integer(Requests))],
              upload(Profile, Authority, Url, Body)
      end,
      lists:zip(lists:seq(1, length(Urls)), Urls)).

upload(_, _, _, <<>>) ->
    ok;
upload(Profile, Authority, Url, Body) ->
    ask(Profile, Authority, post, {Url ++ "/big", [], "application/octet-stream", Body}).

ask(Profile, Authority, Method, Request) ->
    Options = [{ssl, [{verify, verify_peer}, {cacertfile, Authority},
                      {customize_hostname_check, [{match_fun, public_key:pkix_verify_hostname_match_fun(https)}]}]},
               {autoredirect, false}],
    {ok, {{_, 200, _}, _, _}} = httpc:request(Method, Request, Options, [], Profile),
    ok.
