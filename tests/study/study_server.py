"""The study's HTTP app in a process of its own: `python -m tests.study.study_server URL PORT`."""

import sys

import uvicorn
from fastapi import FastAPI

from db.engine import Database
from study.api import router

if __name__ == "__main__":
    with Database.open(sys.argv[1]) as database:
        app = FastAPI(openapi_url=None, routes=list(router(database).routes))
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
