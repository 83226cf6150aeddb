// HttpClient: one, and so one connection, for each URL. See README.md for the arguments; SSL_CERT_FILE names the root.
using System;
using System.Linq;
using System.Net;
using System.Net.Http;
using System.Threading.Tasks;

static class Client
{
	static async Task Ask(HttpClient client, HttpMethod method, string url, string authorization, byte[] body)
	{
		var request = new HttpRequestMessage(method, url);
		if (authorization != null)
			request.Headers.TryAddWithoutValidation("Authorization", authorization);
		if (body != null)
			request.Content = new ByteArrayContent(body);
		var response = await client.SendAsync(request);
		await response.Content.ReadAsByteArrayAsync();
		if (response.StatusCode != HttpStatusCode.OK)
			throw new Exception(method + " " + url + ": status " + (int)response.StatusCode);
	}

	static async Task<int> Speak(string[] args)
	{
		var requests = int.Parse(args[1]);
		var big = int.Parse(args[2]);
		var body = Enumerable.Range(0, big).Select(i => (byte)"0123456789abcdef"[i % 16]).ToArray();
		foreach (var url in args.Skip(4))
		{
			using (var client = new HttpClient())
			{
				if (big > 0)
					await Ask(client, HttpMethod.Post, url + "/big", null, body);
				foreach (var name in args[3].Split(' '))
					for (var i = 0; i < requests; i++)
						await Ask(client, HttpMethod.Get, url + "/" + name,
							"Bearer " + Environment.GetEnvironmentVariable(name), null);
				if (big > 0)
					await Ask(client, HttpMethod.Post, url + "/big", null, body);
			}
		}
		return 0;
	}

	static int Main(string[] args)
	{
		return Speak(args).GetAwaiter().GetResult();
	}
}
